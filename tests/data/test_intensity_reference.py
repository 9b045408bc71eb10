"""Scans of another kind than those that a network was trained on are named; sound CTs are not."""

import re

import nibabel as nib
import numpy as np
import pytest

from medseg.data import read_volume
from medseg.data.intensity_reference import compare_intensities, describe_training
from medseg.data.phantom import is_phantom

SOUND = (
    "totalseg_mini/s0000/ct.nii.gz",
    "totalseg_mini/s0001/ct.nii.gz",
    "dicom/abdomen_ct",
    "dicom/sts_ct_rtstruct/STS_001/dicom/image",
    "dicom/sts_ct_rtstruct/STS_001/nifti/image/image.nii.gz",
    "dicom/dcmqi_ct_seg/ct-3slice",
    "found/dicom_monochrome1",
    "found/reports/02_scan_pixdim_rounded/good_lps.nii.gz",
    "odd/dicom/highdicom",
)


@pytest.mark.parametrize("name", SOUND)
def test_sound_cts_are_not_doubted(real, name):
    assert compare_intensities(read_volume(real / name)[0], name, True) == []


def test_metal_at_the_end_of_twelve_bits_is_not_doubted(hu):
    metal = hu.copy()
    metal[:60, :60] = 3071
    assert compare_intensities(metal, "scan", True) == []


@pytest.fixture(scope="module")
def hu(real):
    return read_volume(real / "totalseg_mini" / "s0001" / "ct.nii.gz")[0].astype(np.int32)


WRONG = {
    "+1024, unsigned": (lambda v: (v + 1024).astype(np.uint16), "rescale-missing", "HU [+] 1024"),
    "+1024, as floats": (lambda v: v + 1024.0, "rescale-missing", "HU [+] 1024"),
    "+1024, padded at -1000": (lambda v: np.where(v < -900, -1000, v + 1024), "rescale-missing", "HU [+] 1024"),
    "+1000": (lambda v: v + 1000, "rescale-missing", "HU [+] 1024"),
    "rescaled twice": (lambda v: v - 1024, "not-hu", "rescaled twice"),
    "inverted": (lambda v: -v, "not-hu", "inverted"),
    "0 to 1": (lambda v: (np.clip(v, -1000, 1000) + 1000) / 2000, "not-hu", r"normalized [(]0 to 1[)]"),
    "-1 to 1": (lambda v: np.clip(v, -1000, 1000) / 1000, "not-hu", r"normalized [(]-1 to 1[)]"),
    "mean 0 and deviation 1": (lambda v: (v - v.mean()) / v.std(), "not-hu", "mean and deviation"),
    "0 to 255": (lambda v: (np.clip(v, -160, 240) + 160) * 255 // 400, "not-hu", "8-bit image"),
    "a window": (lambda v: np.clip(v, -160, 240), "saturated", "clipped"),
    "an MR": (lambda v: np.abs(v + 1000) * 2 // 5, "not-hu", "none is below water"),
    "a mask": (lambda v: v > 200, "not-hu", "mask or label map"),
    "a label map": (lambda v: np.digitize(v, np.arange(-900, 900, 20)), "not-hu", "label map"),
    "one value": (lambda v: np.zeros_like(v), "constant", "every voxel is 0"),
    "tenfold": (lambda v: v * 10, "hu-range", "those of a CT"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_ct_in_hu_is_named(hu, name):
    change, code, message = WRONG[name]
    findings = compare_intensities(np.asarray(change(hu)), "scan", True)
    assert code in [finding.code for finding in findings]
    assert re.search(message, " ".join(finding.message for finding in findings))


def test_the_real_scan_without_rescale_is_named(real):
    (finding,) = compare_intensities(
        read_volume(real / "found" / "nifti" / "hu_plus_1024_unsigned.nii.gz")[0], "scan", True
    )
    assert (finding.code, "HU + 1024" in finding.message) == ("rescale-missing", True)


@pytest.fixture
def mr(save):
    """Images of another kind, 0 to about 600, and what is known of a network that was trained on them."""
    rng = np.random.default_rng(0)
    paths = [save(f"mr{k}.nii.gz", rng.gamma(2, 100, (20, 20, 8)).astype(np.float32)) for k in range(6)]
    return describe_training(paths)


def test_a_network_of_mr_is_told_of_other_ranges_and_not_of_hu(mr, hu):
    rng = np.random.default_rng(1)
    assert (mr["hu"], mr["cases"], mr["phantoms"]) == (False, 4, False)
    assert compare_intensities(rng.gamma(2, 120, (9, 9, 9)), "scan", False, mr) == []
    for other in (hu - 2000, rng.random((9, 9, 9)), 100 * rng.gamma(2, 100, (9, 9, 9))):
        (finding,) = compare_intensities(other, "scan", False, mr)
        assert finding.code == "unlike-training"
    (finding,) = compare_intensities(np.ones((3, 3, 3)), "scan", False, mr)
    assert finding.code == "constant"


@pytest.mark.parametrize("reference", [None, {}, {"p0_5": 3}, {"p0_5": ["a"], "p99_5": [1, 2]}, "text", [1]])
def test_a_bundle_without_a_reference_says_nothing_of_other_kinds(reference):
    assert compare_intensities(np.arange(27.0).reshape(3, 3, 3), "scan", False, reference) == []


def test_phantoms_are_known_for_what_they_are_even_when_they_are_copied(phantom, tmp_path, real):
    source = phantom / "p0000" / "ct.nii.gz"
    copy = tmp_path / "patient.nii.gz"
    copy.write_bytes(source.read_bytes())
    scan = real / "totalseg_mini" / "s0001" / "ct.nii.gz"
    assert [is_phantom(path) for path in (source, copy, scan, tmp_path / "missing.nii.gz")] == [
        True,
        True,
        False,
        False,
    ]
    reference = describe_training([source, copy])
    assert (reference["phantoms"], reference["hu"]) == (True, True)
    assert describe_training([source, scan])["phantoms"] is False
    for path, codes in ((scan, ["trained-on-phantoms"]), (copy, [])):
        voxels = np.asanyarray(nib.load(path).dataobj)
        assert [finding.code for finding in compare_intensities(voxels, path, True, reference)] == codes
    assert describe_training([]) == {"phantoms": False}
