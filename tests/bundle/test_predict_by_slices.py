"""A volume, slice by slice through a network of pictures: what comes out is what its slices as pictures would give."""

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel import orientations
from PIL import Image

from medseg.bundle import BatchPredictor, Bundle, Predictor, SliceWriter
from medseg.data import read_grid, slice_items
from medseg.errors import ConfigError, DeviceError
from medseg.image_io_2d import read_image_2d
from medseg.networks import SegFormer
from tests.slices import TINY, Levels, Ranges

pytestmark = pytest.mark.slow


class Directed(Levels):
    """`Levels` of a picture mixed with itself a row further down and two columns to the right."""

    def forward(self, image):
        return super().forward(0.6 * image + 0.4 * image.roll((1, 2), (2, 3)))


class Neighbors(Levels):
    """`Levels` of a mixture of a slice and those around it, to each of which something else falls."""

    def forward(self, image):
        grey = (image * torch.tensor([0.1, 0.55, 0.35]).reshape(1, 3, 1, 1)).sum(1, keepdim=True) * 0.226 + 0.449
        return torch.cat([-20 * (grey - centre).abs() for centre in self.centres], dim=1)


def predictor(run, slices=False, context=0, **overrides):
    found = Predictor(Bundle(run), {"device": "cpu", "context": context, **overrides}, slices=slices)
    found.network = Neighbors() if context else Directed()
    return found


def oblique():
    turn = np.deg2rad(25)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine[:3, :3] = affine[:3, :3] @ np.diag([1.2, 1.2, 5])
    affine[:3, 3] = -30, 12, 7
    return affine


def volume(save, axes="RAS", affine=None, high=256):
    """A body without any symmetry, turned to these axes."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, high, (26, 30, 5))
    values[3:12, 20:28, 1:3], values[18:, :6, 3:] = high - 1, 0
    image = nib.Nifti1Image(values.astype(np.int16), np.diag([1.5, 1.5, 4, 1]) if affine is None else affine)
    own = orientations.io_orientation(image.affine)
    image = image.as_reoriented(orientations.ornt_transform(own, orientations.axcodes2ornt(axes)))
    return save(f"{axes}.nii.gz", np.asanyarray(image.dataobj), image.affine)


def by_pictures(work, source, folder, dtype):
    """Save the slices as pictures with the patient's front up and right on the left, segment them, and stack them."""
    image = nib.load(source)
    own = orientations.io_orientation(image.affine)
    screen = orientations.axcodes2ornt("PLS")
    turned = image.as_reoriented(orientations.ornt_transform(own, screen))
    values = np.asanyarray(turned.dataobj).astype(dtype)
    (folder / "in").mkdir()
    for k in range(values.shape[2]):
        Image.fromarray(np.ascontiguousarray(values[:, :, k])).save(folder / "in" / f"mr_slice_{k + 1:04d}.png")
    items = slice_items(folder / "in", context=int(work.channels == 3 and isinstance(work.network, Neighbors)))
    batch = BatchPredictor(work, SliceWriter.of(work, folder / "out", items))
    masks = [outcome.result.mask for outcome in batch.run()]
    label = np.stack([read_image_2d(mask).values for mask in masks], axis=-1)
    return orientations.apply_orientation(label, orientations.ornt_transform(screen, own))


@pytest.mark.parametrize(
    ("axes", "affine", "window", "high", "context"),
    [
        ("RAS", None, [0, 255], 256, 0),
        ("LPS", None, [0, 255], 256, 0),
        ("SAL", None, [0, 255], 256, 0),
        ("RAS", oblique(), [0, 255], 256, 0),
        ("LPS", oblique(), "scan", 3000, 0),
        ("RAS", None, "scan", 3000, 0),
        ("PIR", None, "scan", 3000, 1),
        ("LAI", None, [0, 255], 256, 1),
    ],
)
def test_a_volume_equals_its_slices(trained_slices, save, tmp_path, axes, affine, window, high, context):
    source = volume(save, axes, affine, high)
    found = predictor(trained_slices, window=window, context=context).predict_case(source)
    assert found.grid.matches(read_grid(source), tolerance_mm=1e-6)
    pictures = predictor(trained_slices, slices=True, context=context)
    wanted = by_pictures(pictures, source, tmp_path, np.uint8 if high == 256 else np.uint16)
    assert found.label.shape == wanted.shape == nib.load(source).shape
    assert np.mean(found.label == wanted) > 0.9995  # what lies between two levels may fall to either
    assert np.all(np.bincount(wanted.ravel(), minlength=4) > 30)
    mask = nib.load(found.save(tmp_path / "mask.nii.gz"))
    assert np.array_equal(mask.affine, nib.load(source).affine)
    assert np.array_equal(np.asanyarray(mask.dataobj), found.label)


def test_the_window_decides_what_is_black_and_what_is_white(trained_slices, save):
    values = np.repeat(np.array([-900, -160, -27, 107, 240, 2000], np.int16), 8)[:, None, None] * np.ones((1, 36, 2))
    work = predictor(trained_slices, window=[-160, 240])
    work.network = Levels()
    found = work.predict_case(save("ct.nii.gz", values.astype(np.int16)))
    assert found.label[4::8, 18, 1].tolist() == [0, 0, 1, 2, 3, 3]


def test_without_a_window_no_volume_passes(trained_slices, save):
    with pytest.raises(
        ConfigError, match=r"window: it is not known which values were black and white .*--set window=scan"
    ):
        predictor(trained_slices).predict_case(volume(save))


def test_settings_that_do_not_fit_are_refused_before_reading(trained_slices, trained):
    with pytest.raises(ConfigError, match="this bundle takes volumes only, not 2D slices"):
        Predictor(Bundle(trained), {"device": "cpu"}, slices=True)
    with pytest.raises(
        ConfigError, match=r"network: its output .* must have the shape \(1, 5, 32, 32\) [(]got \(1, 4, 32, 32\)"
    ):
        Predictor(Bundle(trained_slices), {"device": "cpu", "out_channels": "$5", "network_def#out_channels": 4})
    with pytest.raises(DeviceError, match=r"network, .*: it is on meta, and the run computes on cpu"):
        Predictor(Bundle(trained_slices), {"device": "cpu", "network": "$@network_def.to('meta')"})


def test_structures_that_overlap_become_one_label_map(trained_slices, save, tmp_path):
    torch.save(SegFormer(3, 3, TINY["variant"]).state_dict(), tmp_path / "model.pt")
    weights = {"multilabel": True, "ckpt_path": str(tmp_path / "model.pt"), "window": [0, 255]}
    work = predictor(trained_slices, **weights)
    work.network = Ranges()
    values = np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.int16)  # of the window's size
    found = work.predict_case(save("mr.nii.gz", values)).label
    wanted = np.zeros(values.shape, int)
    for name in work.labels.overlap_priority():
        wanted[values / 255 > work.labels.index(name) / 4] = work.labels.index(name)
    assert np.array_equal(found, wanted)
    assert len(np.unique(wanted)) > 2


def test_only_requested_structures_come_out_with_a_coarse_pass_too(trained_slices, save):
    source = volume(save)
    whole = predictor(trained_slices, window=[0, 255]).predict_case(source).label
    for coarse_first in (False, True):
        some = Predictor(
            Bundle(trained_slices), {"device": "cpu", "window": [0, 255]}, ["small_bowel"], coarse_first=coarse_first
        )
        some.network = Directed()
        assert np.array_equal(some.predict_case(source).label, np.where(whole == 2, 2, 0))
