from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.data.checks import geometry
from medseg.data.checks.files import Volume
from medseg.findings import Finding
from medseg.grid import Grid

SHAPE = (40, 30, 20)
PLAIN = np.diag([2.0, 2.0, 3.0, 1.0])


def volume(affine=PLAIN, shape=SHAPE, qform=None, units="mm", dtype=np.int16) -> Volume:
    array = np.zeros(shape, dtype)
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units(units)
    if qform is not None:
        image.set_qform(qform, 1)
    return Volume(Path("ct.nii.gz"), image.header, array)


def codes(patient: Volume) -> list[str]:
    grid = geometry.grid_of(patient)
    assert isinstance(grid, Grid)
    return [finding.code for finding in geometry.check_geometry(patient, grid)]


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
def test_plain_axes_have_no_findings(signs):
    assert codes(volume(np.diag([*signs, 1]) @ PLAIN)) == []


def test_a_mirrored_axis_is_a_note_with_its_axes():
    patient = volume(np.diag([-1, 1, 1, 1]) @ PLAIN)
    (finding,) = geometry.check_geometry(patient, geometry.grid_of(patient))
    assert (finding.severity, finding.code) == ("note", "axes-left-handed")
    assert "LAS" in finding.message


def test_a_gantry_tilt_is_a_note():
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    assert codes(volume(turn @ PLAIN)) == ["axes-oblique"]


@pytest.mark.parametrize(("amount", "expected"), [(1e-6, []), (1e-3, ["axes-not-orthonormal"]), (0.1, ["shear"])])
def test_shear_is_told_from_rounding(amount, expected):
    affine = PLAIN.copy()
    affine[0, 2] = amount * affine[2, 2]
    assert [code for code in codes(volume(affine)) if code not in {"axes-oblique", "spacing-contradicts"}] == expected


@pytest.mark.parametrize(("moved", "severity"), [(0.01, None), (0.5, "warning"), (5.0, "error")])
def test_sform_and_qform_are_compared(moved, severity):
    second = PLAIN.copy()
    second[0, 3] = moved
    patient = volume(qform=second)
    result = geometry.check_geometry(patient, geometry.grid_of(patient))
    assert [finding.severity for finding in result] == ([severity] if severity else [])
    if severity:
        assert f"{moved:.4g} mm apart" in result[0].message


def test_a_qform_alone_is_enough():
    patient = volume(qform=PLAIN)
    patient.header["sform_code"] = 0
    assert codes(patient) == []
    patient.header["qform_code"] = 0
    assert codes(patient) == ["no-geometry"]


def test_an_invalid_affine_is_a_finding():
    patient = volume()
    patient.header["srow_x"] = 0
    assert geometry.grid_of(patient).code == "affine-impossible"
    patient.header["srow_x"] = np.nan
    assert geometry.grid_of(patient).code == "affine-impossible"
    patient = volume(qform=PLAIN)
    patient.header["sform_code"] = 0
    patient.header["quatern_b"] = 5
    assert geometry.grid_of(patient).code == "affine-impossible"


@pytest.mark.parametrize("scale", [1e-3, 0.02, 100])
def test_spacings_that_no_patient_has_are_suspicious(scale):
    assert codes(volume(np.diag([scale, scale, scale, 1]) @ PLAIN)) == ["spacing-suspicious"]


def test_units_and_pixdim_must_agree_with_the_affine():
    assert codes(volume(units="meter")) == ["spacing-unit"]
    patient = volume()
    patient.header["pixdim"][1:4] = 1
    assert codes(patient) == ["spacing-contradicts"]


def test_voxels_must_be_a_3d_volume_of_numbers():
    colors = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert geometry.check_voxel_type(volume()) is None
    assert geometry.check_voxel_type(volume(dtype=colors)).code == "rgb"
    assert geometry.check_voxel_type(volume(dtype=np.complex64)).code == "complex"
    assert geometry.check_voxel_type(volume(shape=(4, 4))).code == "not-3d"
    assert "axes of length 1" in geometry.check_voxel_type(volume(shape=(4, 4, 4, 1))).fix


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
