"""Every odd header: what `data check` calls it, what readers do with it, and where its mask lies in nibabel and ITK."""

import logging
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import LoadImaged

from medseg.data import read_grid, read_volume
from medseg.data.check import check_dataset
from medseg.data.checks.geometry import check_grid
from medseg.data.nifti import place_image
from medseg.data.nifti_writer import label_image, write_label_map
from medseg.data.scan_rules import RULES
from medseg.data.volumes import read_header
from medseg.errors import DataError
from medseg.labels import LabelMap
from tests.odd_headers import ERRORS, NEVER, SOUND, WARNINGS, Odd, itk_grid, put, write_odd

LABELS = LabelMap(["liver"])
READABLE = {**SOUND, **WARNINGS, **ERRORS}


@pytest.fixture(autouse=True)
def no_line_of_nibabel_without_a_name(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    assert [record for record in caplog.records if record.name.startswith("nibabel")] == []


def by_nibabel(path):
    """Where nibabel sees a file; it logs what it corrects, without the file's name."""
    logging.disable(logging.CRITICAL)
    image = nib.load(path)
    logging.disable(logging.NOTSET)
    return image


def codes(path, *severities):
    kinds = check_dataset(path, workers=1).findings
    return {finding.code for finding in kinds if finding.severity in severities and finding.code in RULES}


@pytest.mark.parametrize("name", SOUND)
def test_sound_headers_are_read_without_a_word(tmp_path, caplog, name):
    path = write_odd(tmp_path / "ct.nii.gz", SOUND[name])
    voxels, grid = read_volume(path)
    assert np.allclose(grid.affine, by_nibabel(path).affine)
    assert np.array_equal(voxels, np.asarray(by_nibabel(path).dataobj).reshape(grid.shape))
    assert caplog.text == ""
    assert codes(path, "error", "warning") == set()


@pytest.mark.parametrize("name", WARNINGS)
def test_doubtful_headers_are_read_with_a_line_that_names_the_file(tmp_path, caplog, name):
    odd = WARNINGS[name]
    path = write_odd(tmp_path / "ct.nii.gz", odd)
    grid = read_volume(path)[1]
    assert np.allclose(grid.affine[:3], by_nibabel(path).affine[:3] * odd.factor)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith(f"{path}: ")
    assert codes(path, "error", "warning") == {odd.code}


@pytest.mark.parametrize("name", {**ERRORS, **NEVER})
def test_what_the_check_calls_an_error_is_refused_by_the_same_code_and_name(tmp_path, name):
    odd = {**ERRORS, **NEVER}[name]
    path = write_odd(tmp_path / "ct.nii.gz", odd)
    with pytest.raises(DataError) as caught:
        read_volume(path)
    assert caught.value.code == odd.code
    assert caught.value.thing == str(path)
    assert codes(path, "error") == {odd.code}
    load = LoadImaged("image", reader="medseg.data.VolumeReader")
    with pytest.raises(DataError, match="ct.nii.gz: "):
        load({"image": str(path)})


def test_a_unit_of_meters_on_a_spacing_in_mm_is_refused(tmp_path):
    path = write_odd(tmp_path / "ct.nii.gz", Odd(None, SOUND["sform"].sform, change=put(xyzt_units=1)))
    assert codes(path, "error") == {"spacing-beyond-body", "origin-beyond-body"}
    with pytest.raises(DataError, match="a voxel measures 2500 x 2500 x 6000 mm"):
        read_volume(path)


@pytest.mark.parametrize("name", NEVER)
def test_what_cannot_be_placed_cannot_be_accepted(tmp_path, name):
    with pytest.raises(DataError):
        read_volume(write_odd(tmp_path / "ct.nii", NEVER[name]), list(RULES))


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_a_mask_lies_on_its_scan_for_nibabel_and_for_itk(tmp_path, caplog, name, suffix):
    odd = READABLE[name]
    path = write_odd(tmp_path / f"ct{suffix}", odd)
    accept = [odd.code] if name in ERRORS else []
    voxels, grid = read_volume(path, accept)
    assert (path.name in caplog.text) == (name not in SOUND)
    label = (voxels > 0).astype(np.uint8)
    mask = write_label_map(tmp_path / "mask.nii.gz", label, path, LABELS)
    assert read_grid(mask, accept).matches(grid)
    written, scan = by_nibabel(mask), by_nibabel(path)
    assert np.array_equal(written.affine, scan.affine)
    assert np.array_equal(label_image(label, path, LABELS).affine, scan.affine)
    assert written.shape == scan.shape == odd.shape
    assert np.array_equal(np.asarray(written.dataobj).reshape(grid.shape), label)
    if "shear" not in name and odd.code != "axes-not-orthonormal":  # ITK refuses to read these at all
        for of_mask, of_scan in zip(itk_grid(mask), itk_grid(path), strict=True):
            assert np.array_equal(of_mask, of_scan)


@pytest.mark.parametrize("name", [name for name in READABLE if name not in ("vectors", "t_statistics")])
def test_an_image_in_memory_is_placed_by_the_same_rules(tmp_path, name):
    odd = READABLE[name]
    if odd.code in ("vox-offset", "pixdim-negative"):  # nibabel has mended or hidden it while loading
        return
    path = write_odd(tmp_path / "ct.nii.gz", odd)
    grid, problems = place_image(by_nibabel(path), "scan")
    known, expected = read_header(path, list(RULES))
    assert grid.matches(known)
    of_grid = {problem.code for problem in check_grid(known, "scan")}
    assert {problem.code for problem in problems} == {problem.code for problem in expected} - of_grid


@pytest.mark.parametrize("name", {**SOUND, **WARNINGS})
def test_a_network_sees_what_nibabel_sees(tmp_path, name):
    odd = READABLE[name]
    path = write_odd(tmp_path / "ct.nii.gz", odd)
    image = LoadImaged("image", reader="medseg.data.VolumeReader")({"image": str(path)})["image"]
    if odd.code == "vox-offset":  # nibabel takes the header for voxels then
        path = write_odd(tmp_path / "ct.nii", replace(odd, change=lambda header: None))
    known = by_nibabel(path)
    assert np.array_equal(image.numpy(), np.asarray(known.dataobj).reshape(odd.shape[:3]).astype(np.float32))
    tolerance = {"shear_of_a_fifth_degree": 0.3, "oblique_4_digits": 2e-3}.get(name, 1e-6)  # the nearest upright grid
    assert np.allclose(image.affine[:3], known.affine[:3] * odd.factor, atol=tolerance)
