"""nibabel's affines are the reference."""

import nibabel as nib
import numpy as np
import pytest

from medseg.errors import GeometryError
from medseg.inference.grid_mapping import OutputGridMap, axis_at


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL", "PIR"])
def test_every_voxel_lies_where_the_affines_have_it(axes):
    inner = nib.Nifti1Image(np.zeros((8, 9, 10), np.uint8), np.diag([1.5, 1.5, 3, 1]))
    turn = nib.orientations.ornt_transform(nib.io_orientation(inner.affine), nib.orientations.axcodes2ornt(axes))
    outer = inner.as_reoriented(turn)
    shape, affine = outer.shape, outer.affine @ np.diag([0.8, 0.9, 1.0, 1])
    back = OutputGridMap.between(shape, affine, inner.shape, inner.affine)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    wanted = nib.affines.apply_affine(np.linalg.inv(inner.affine) @ affine, index)
    for axis, where in enumerate(back.axes):
        along = np.moveaxis(wanted[..., axis], back.order[axis], 0)[:, 0, 0]
        assert np.allclose(where.low + where.part, np.clip(along, 0, inner.shape[axis] - 1), atol=1e-5)
    assert np.allclose(back.affine, affine)


def test_the_ends_go_on_for_half_a_voxel_and_no_further():
    where = axis_at(np.array([-0.6, -0.5, 0.0, 1.25, 3.0, 3.5, 3.6]), 4)
    assert where.inside.tolist() == [False, True, True, True, True, True, False]
    assert (where.low + where.part).tolist() == [0, 0, 0, 1.25, 3, 3, 3]
    assert not where.is_plain
    assert axis_at(np.arange(4.0), 4).is_plain


def test_an_axis_of_one_voxel_can_be_gone_back_to():
    where = axis_at(np.array([0.0, 0.4]), 1)
    assert where.low.tolist() == [0, 0]
    assert not where.part.any()


def test_shear_is_refused_with_the_name_of_the_scan():
    affine = np.eye(4)
    affine[0, 1] = 0.3
    with pytest.raises(GeometryError, match="s7: must have axes at right angles"):
        OutputGridMap.between((8, 8, 8), affine, (8, 8, 8), np.eye(4), "s7")
