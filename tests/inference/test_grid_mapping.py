"""Compare with nibabel's affines."""

import nibabel as nib
import numpy as np
import pytest

from medseg.errors import GeometryError
from medseg.inference.grid_mapping import OutputGridMap, axis_map


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL", "PIR"])
def test_every_voxel_lies_where_the_affines_have_it(axes):
    inner = nib.Nifti1Image(np.zeros((8, 9, 10), np.uint8), np.diag([1.5, 1.5, 3, 1]))
    turn = nib.orientations.ornt_transform(nib.io_orientation(inner.affine), nib.orientations.axcodes2ornt(axes))
    outer = inner.as_reoriented(turn)
    shape, affine = outer.shape, outer.affine @ np.diag([0.8, 0.9, 1.0, 1])
    grid = OutputGridMap.between(shape, affine, inner.shape, inner.affine)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    expected = nib.affines.apply_affine(np.linalg.inv(inner.affine) @ affine, index)
    for index, axis in enumerate(grid.axes):
        positions = np.moveaxis(expected[..., index], grid.order[index], 0)[:, 0, 0]
        assert np.allclose(axis.low + axis.fraction, np.clip(positions, 0, inner.shape[index] - 1), atol=1e-5)
    assert np.allclose(grid.affine, affine)


def test_the_border_is_repeated_for_half_a_voxel_and_no_further():
    axis = axis_map(np.array([-0.6, -0.5, 0.0, 1.25, 3.0, 3.5, 3.6]), 4)
    assert axis.inside.tolist() == [False, True, True, True, True, True, False]
    assert (axis.low + axis.fraction).tolist() == [0, 0, 0, 1.25, 3, 3, 3]
    assert not axis.is_on_grid
    assert axis_map(np.arange(4.0), 4).is_on_grid


def test_an_axis_of_one_voxel_is_mapped():
    axis = axis_map(np.array([0.0, 0.4]), 1)
    assert axis.low.tolist() == [0, 0]
    assert not axis.fraction.any()


def test_shear_is_refused_with_the_name_of_the_scan():
    affine = np.eye(4)
    affine[0, 1] = 0.3
    with pytest.raises(GeometryError, match="s7: its axes are not at right angles"):
        OutputGridMap.between((8, 8, 8), affine, (8, 8, 8), np.eye(4), "s7")
