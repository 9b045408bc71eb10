"""MONAI's Spacingd is the reference: what it would make of a volume is what comes out here."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation, Spacing

from medseg.data.resample import body_box, crop, resample
from medseg.errors import GeometryError
from medseg.grid import Grid, to_ras


def oblique(spacing, angle):
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = 10, -20, 30
    return affine


# None of them puts a new voxel half-way between two old ones, where the nearest is either.
AFFINES = [
    np.diag([-0.7, -0.7, 2.0, 1.0]),
    np.diag([3.1, 3.1, 3.1, 1.0]),
    oblique((0.9, 1.1, 2.5), 0.2),
    oblique((-2.1, 1.7, 5.0), -0.3),
]


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("spacing", [(1.5, 1.5, -1), (2.0, 1.0, 3.0)])
def test_it_gives_what_monai_gives(affine, spacing):
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 1000, (21, 18, 9)).astype(np.float32)
    label = rng.integers(0, 5, hu.shape).astype(np.uint8)
    volumes, grid = to_ras([hu, label], Grid(hu.shape, affine))
    volumes, grid = resample(volumes, grid, spacing)
    for volume, source, mode in zip(volumes, (hu, label), ("bilinear", "nearest"), strict=True):
        image = MetaTensor(torch.from_numpy(source.astype(np.float32))[None], affine=torch.from_numpy(affine))
        image = Spacing(pixdim=spacing, mode=mode)(Orientation("RAS", labels=None)(image))
        assert volume.shape == image.shape[1:]
        assert np.allclose(grid.affine, image.affine.numpy(), atol=1e-5)
        expected = image[0].numpy()
        if mode == "bilinear":
            assert np.abs(volume - expected).max() < 0.05  # HU
        else:
            assert np.array_equal(volume, expected)


def test_resampling_to_the_same_spacing_changes_nothing():
    volume = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    grid = Grid(volume.shape, np.diag([1.5, 1.5, 5, 1]))
    (same,), unchanged = resample([volume], grid, (1.5, 1.5, -1))
    assert np.array_equal(same, volume)
    assert unchanged.matches(grid)
    with pytest.raises(GeometryError, match="three lengths"):
        resample([volume], grid, (1.0, 1.0))


def test_a_crop_lies_where_it_lay():
    volume = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    affine = oblique((2.0, 3.0, 4.0), 0.4)
    box = (slice(1, 3), slice(2, 5), slice(0, 4))
    (part,), grid = crop([volume], Grid(volume.shape, affine), box)
    slicer = nib.Nifti1Image(volume.astype(np.int16), affine).slicer[1:3, 2:5, 0:4]
    assert np.array_equal(part, slicer.dataobj)
    assert np.allclose(grid.affine, slicer.affine)


def test_the_box_holds_body_and_labels_without_the_table():
    hu = np.full((60, 50, 10), -1000, np.int16)
    hu[20:40, 15:35] = 40  # the body
    hu[5:55, 45:47] = 100  # the table below it
    label = np.zeros(hu.shape, np.uint8)
    grid = Grid(hu.shape, np.diag([2.0, 2, 5, 1]))
    i, j, k = body_box(hu, label, grid, margin_mm=4)
    assert (i.start, i.stop) == (17, 42) or (17 <= i.start <= 18 and 42 <= i.stop <= 43)
    assert j.stop < 45
    assert (k.start, k.stop) == (0, 10)
    label[58, 48, 9] = 1
    assert all(part.start <= at < part.stop for part, at in zip(body_box(hu, label, grid), (58, 48, 9), strict=True))


def test_a_volume_of_air_is_not_cropped():
    hu = np.full((8, 9, 10), -1000, np.int16)
    box = body_box(hu, np.zeros_like(hu), Grid(hu.shape, np.eye(4)))
    assert [(part.start, part.stop) for part in box] == [(0, 8), (0, 9), (0, 10)]
