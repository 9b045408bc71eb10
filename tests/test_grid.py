import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import polar

from medseg.errors import GeometryError
from medseg.grid import Grid, to_ras

SPACINGS = st.tuples(*[st.floats(0.1, 10) for _ in range(3)])
SIGNS = st.tuples(*[st.sampled_from([-1.0, 1.0]) for _ in range(3)])
ORDERS = st.permutations([0, 1, 2])


@given(SPACINGS, SIGNS, ORDERS, arrays(float, 3, elements=st.floats(-500, 500)))
def test_axes_spacing_and_volume_agree_with_nibabel(spacing, signs, order, origin):
    affine = np.eye(4)
    affine[:3, :3] = (np.diag(np.multiply(spacing, signs)))[:, order]
    affine[:3, 3] = origin
    grid = Grid((4, 5, 6), affine)
    assert grid.axes == "".join(nib.aff2axcodes(affine))
    np.testing.assert_allclose(grid.spacing, nib.affines.voxel_sizes(affine))
    assert grid.voxel_ml == pytest.approx(np.prod(spacing) / 1000)


@given(st.floats(-40, 40), st.floats(-40, 40))
def test_axes_of_an_oblique_grid_agree_with_nibabel(about_z, about_x):
    z, x = np.deg2rad(about_z), np.deg2rad(about_x)
    turn_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    affine = np.eye(4)
    affine[:3, :3] = turn_z @ turn_x @ np.diag([-1, -1, 2])
    assert Grid((3, 3, 3), affine).axes == "".join(nib.aff2axcodes(affine))


@given(st.floats(0, 5))
def test_distance_is_the_largest_distance_of_corners(shift):
    first = Grid((4, 4, 4), np.eye(4))
    affine = np.eye(4)
    affine[0, 3] = shift
    second = Grid((4, 4, 4), affine)
    assert first.distance(second) == pytest.approx(shift)
    assert first.distance(second) == second.distance(first)
    assert first.matches(second) == (shift <= 1e-3)


def test_a_flip_with_the_same_shape_does_not_match():
    affine = np.diag([-1.0, 1, 1, 1])
    affine[0, 3] = 3
    assert not Grid((4, 4, 4), np.eye(4)).matches(Grid((4, 4, 4), affine))


def test_a_small_rotation_is_measured_at_the_far_corner():
    angle = 1e-4
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert Grid((4, 4, 4), np.eye(4)).matches(Grid((4, 4, 4), affine))
    assert not Grid((512, 4, 4), np.eye(4)).matches(Grid((512, 4, 4), affine))


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((4, 4), np.eye(4)),
        ((4, 4, 0), np.eye(4)),
        ((4, 4, 4), np.eye(3)),
        ((4, 4, 4), np.full((4, 4), np.nan)),
        ((4, 4, 4), np.diag([1.0, 1, 0, 1])),
    ],
)
def test_an_invalid_grid_is_refused(shape, affine):
    with pytest.raises(
        GeometryError, match="a grid needs three positive sizes|it must be 4x4 and finite|it must be invertible"
    ):
        Grid(shape, affine)


def test_require_names_both_files_and_the_distance():
    first = Grid((4, 4, 4), np.eye(4))
    affine = np.eye(4)
    affine[2, 3] = 2.5
    with pytest.raises(
        GeometryError, match=r"liver\.nii\.gz: it lies up to 2\.5 mm from ct\.nii\.gz, more than the 0\.001 mm"
    ):
        first.require(Grid((4, 4, 4), affine), "liver.nii.gz", "ct.nii.gz")
    with pytest.raises(GeometryError, match=r"its shape \(4, 4, 5\) differs from the shape \(4, 4, 4\) of ct"):
        first.require(Grid((4, 4, 5), np.eye(4)), "liver.nii.gz", "ct.nii.gz")


def test_a_grid_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        Grid((2, 2, 2), np.eye(4)).affine[0, 0] = 3


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SAL"])
def test_any_orientation_is_turned_to_ras_without_resampling(axes):
    plain = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    image = nib.Nifti1Image(plain.astype(np.int16), np.diag([1.0, 2, 3, 1]))
    orientation = nib.orientations.axcodes2ornt(axes)
    turned = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), orientation))
    grid = Grid(turned.shape, turned.affine)
    assert grid.axes == axes
    (back,), straight = to_ras([np.asanyarray(turned.dataobj)], grid)
    assert np.array_equal(back, plain)
    assert np.allclose(straight.affine, image.affine)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_a_sheared_grid_becomes_the_nearest_upright_one(order):
    affine = np.diag([0.9, -1.1, 2.0, 1.0])
    affine[0, 2], affine[2, 1] = 0.3, 0.2
    affine[:3, :3] = affine[:3, order]
    affine[:3, 3] = 5, -7, 11
    grid = Grid((30, 32, 20), affine)
    straight = grid.upright()
    rotation, _ = polar(affine[:3, :3] / np.array(grid.spacing))
    assert np.allclose(straight.affine[:3, :3], rotation * grid.spacing)
    assert straight.shear < 1e-6 < 5 < grid.shear < 20
    assert straight.spacing == pytest.approx(grid.spacing)
    assert straight.axes == grid.axes
    assert np.allclose(straight.corners().mean(axis=0), grid.corners().mean(axis=0))
    assert straight.matches(straight.upright())
