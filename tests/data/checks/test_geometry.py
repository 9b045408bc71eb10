import numpy as np
import pytest

from medseg.data.checks import geometry
from medseg.findings import Finding
from medseg.grid import Grid

SHAPE = (40, 30, 20)
PLAIN = np.diag([2.0, 2.0, 3.0, 1.0])


def codes(affine) -> list[str]:
    return [finding.code for finding in geometry.check_grid(Grid(SHAPE, affine), "ct.nii.gz")]


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
def test_plain_axes_have_no_findings(signs):
    assert codes(np.diag([*signs, 1]) @ PLAIN) == []


def test_a_mirrored_axis_is_a_note_with_its_axes():
    (finding,) = geometry.check_grid(Grid(SHAPE, np.diag([-1, 1, 1, 1]) @ PLAIN), "ct.nii.gz")
    assert (finding.severity, finding.code) == ("note", "axes-left-handed")
    assert "LAS" in finding.message


def test_a_gantry_tilt_is_a_note():
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    assert codes(turn @ PLAIN) == ["axes-oblique"]


@pytest.mark.parametrize(("amount", "expected"), [(1e-6, []), (1e-3, ["axes-not-orthonormal"]), (0.1, ["shear"])])
def test_shear_is_told_from_rounding(amount, expected):
    affine = PLAIN.copy()
    affine[0, 2] = amount * affine[2, 2]
    assert [code for code in codes(affine) if code != "axes-oblique"] == expected


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (0.024, ["spacing-beyond-body"]),
        (0.026, ["spacing-suspicious"]),
        (0.2, ["spacing-suspicious"]),
        (6.6, []),
        (6.7, ["spacing-beyond-body"]),
    ],
)
def test_spacings_that_no_patient_has_are_reported(scale, expected):
    assert codes(np.diag([scale, scale, scale, 1]) @ PLAIN) == expected


@pytest.mark.parametrize(("meters", "expected"), [(9.8, []), (-9.8, []), (10.1, ["origin-beyond-body"])])
def test_an_origin_beyond_the_room_is_reported(meters, expected):
    affine = PLAIN.copy()
    affine[2, 3] = meters * 1000
    assert codes(affine) == expected


def test_a_displaced_mask_is_reported_with_its_distance():
    image = Grid(SHAPE, PLAIN)
    assert geometry.compare_grids(Grid(SHAPE, PLAIN), image, "m") is None
    assert geometry.compare_grids(Grid((40, 30, 19), PLAIN), image, "m").code == "mask-shape"
    moved = PLAIN.copy()
    moved[2, 3] = 4
    finding = geometry.compare_grids(Grid(SHAPE, moved), image, "m", "label")
    assert isinstance(finding, Finding)
    assert finding.code == "label-affine"
    assert "4 mm apart" in finding.message
    turned = geometry.compare_grids(Grid(SHAPE, np.diag([-1.0, 1, 1, 1]) @ PLAIN), image, "m")
    assert "its axes are LAS, the image's RAS" in turned.message
