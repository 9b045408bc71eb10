"""DICOM folders: what is one whole CT series is read right, against the same scan as NIfTI; all else is refused."""

import re
import shutil

import nibabel as nib
import numpy as np
import pytest

from medseg.data import open_series, read_volume
from medseg.data.dicom import holds_dicom, is_dicom
from medseg.errors import DataError, GeometryError


@pytest.fixture
def hu():
    return np.random.default_rng(0).integers(-1000, 1500, (6, 5, 4)).astype(np.int16)


def test_jpeg_2000_from_the_scanner_equals_the_same_scan_as_nifti(real):
    hu, grid = read_volume(real / "dicom" / "abdomen_ct")
    expected, where = read_volume(real / "totalseg_mini" / "s0001" / "ct.nii.gz")
    assert (hu.dtype, grid.axes) == (np.int16, "LPS")
    assert np.array_equal(hu, expected)
    assert where.matches(grid, tolerance_mm=1e-5)


def test_a_second_real_series_equals_its_nifti(real):
    folder = real / "dicom" / "sts_ct_rtstruct" / "STS_001"
    hu, grid = read_volume(folder / "dicom" / "image")
    expected, where = read_volume(folder / "nifti" / "image" / "image.nii.gz")
    assert np.array_equal(hu, expected)
    assert where.matches(grid)


def test_slices_are_ordered_by_place_and_not_by_name(save_dicom, hu):
    found, grid = read_volume(save_dicom("series", hu, PixelSpacing=(0.5, 2.0)))
    assert np.array_equal(found, hu)
    assert grid.spacing == (2.0, 0.5, 3.0)  # PixelSpacing is between rows, then between columns
    assert nib.aff2axcodes(grid.affine) == ("L", "P", "S")
    assert grid.affine[:3, 3].tolist() == [20.0, 30.0, 100.0]


def test_a_coronal_series_lies_where_its_header_says(save_dicom, hu):
    turned = save_dicom(
        "coronal",
        hu,
        ImageOrientationPatient=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
        ImagePositionPatient=lambda k: (0.0, 46.0 + 2.0 * k, 9.0),
    )
    found, grid = read_volume(turned)
    assert np.array_equal(found, hu)
    # slice 1 lies at y = 48 (LPS), column 2 at x = 2, row 3 at z = 9 - 3
    assert np.allclose(grid.affine @ [2, 3, 1, 1], [-2.0, -48.0, 6.0, 1.0])
    assert grid.axes == "LIP"


def test_slopes_of_each_slice_are_applied(save_dicom, hu):
    even = (hu // 4 * 4).astype(np.int16)
    found, _ = read_volume(save_dicom("pet_like", even, RescaleSlope=lambda k: (1.0, 2.0, 4.0, 1.0)[k]))
    assert np.array_equal(found, even)
    halves = hu / 2
    found, _ = read_volume(save_dicom("halves", halves, RescaleSlope=0.5))
    assert found.dtype == np.float32
    assert np.array_equal(found, halves)


def test_one_slice_takes_its_thickness_as_spacing(save_dicom, hu):
    assert read_volume(save_dicom("one", hu[:, :, :1], SliceThickness=2.5))[1].spacing[2] == 2.5
    with pytest.raises(GeometryError, match="a single slice must say its thickness [(]no SliceThickness"):
        read_volume(save_dicom("without", hu[:, :, :1], SliceThickness=None))


def at(*depths):
    return lambda k: (0.0, 0.0, float(depths[k]))


WRONG = {
    "the folder holds 2 series (series 1 (CT, 3 files), series 2 (CT, 1 files))": {
        "SeriesInstanceUID": lambda k: f"1.2.{k // 3}",
        "SeriesNumber": lambda k: 1 + k // 3,
    },
    "the series is not a CT (Modality MR)": {"Modality": "MR"},
    "the series is not a CT (Modality none)": {"Modality": None},
    "slices are missing: most lie 3 mm apart (6 mm between IM008.dcm and IM006.dcm)": {
        "skip": lambda k: k == 1,
    },
    "the slices are unevenly spaced, from 2.5 to 3.5 mm": {"ImagePositionPatient": at(0, 3, 6.5, 9)},
    "two slices lie at one position (IM002.dcm and IM003.dcm": {"ImagePositionPatient": at(0, 3, 3, 6)},
    "the slices have 2 different orientations (1": {
        "ImageOrientationPatient": lambda k: (1.0, 0.0, 0.0, 0.0, 1.0, 0.0) if k else (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    },
    "at right angles": {"ImageOrientationPatient": (1.0, 0.0, 0.0, 0.3, 0.95, 0.0)},
    "the slices have 2 different pixel spacings (1\\1 in 3 files, 2\\2 in 1 files)": {
        "PixelSpacing": lambda k: (2.0, 2.0) if k == 1 else (1.0, 1.0)
    },
    "the slices are shifted by up to 3 mm within their plane (a tilted gantry)": {
        "ImagePositionPatient": lambda k: (0.0, 1.0 * k, 3.0 * k)
    },
    "1 files do not say where their slice lies (IM003.dcm)": {
        "ImagePositionPatient": lambda k: None if k == 1 else (0.0, 0.0, 3.0 * k)
    },
    "the header does not say its PixelSpacing": {"PixelSpacing": None},
}


@pytest.mark.parametrize("message", WRONG)
def test_a_folder_that_is_not_one_even_ct_series_is_refused(save_dicom, hu, message):
    folder = save_dicom(
        "wrong", np.concatenate([hu, hu], axis=2)[:, :, : 8 if "skip" in WRONG[message] else 4], **WRONG[message]
    )
    with pytest.raises(DataError, match=re.escape(message)):
        open_series(folder)


def test_rounded_positions_are_an_even_series(save_dicom, hu):
    assert read_volume(save_dicom("rounded", hu, ImagePositionPatient=at(0, 0.8, 1.5, 2.3)))[1].spacing[
        2
    ] == pytest.approx(2.3 / 3)


def test_a_slice_of_another_size_is_refused(save_dicom, hu):
    folder = save_dicom("series", hu)
    other = save_dicom("other", hu[:4])
    shutil.copy(other / "IM002.dcm", folder / "IM002.dcm")
    with pytest.raises(
        GeometryError, match=r"2 different numbers of rows and columns [(]5\\6 in 3 files, 5\\4 in 1 files"
    ):
        open_series(folder)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_a_file_that_is_cut_short_is_refused_by_name(save_dicom, hu, part):
    folder = save_dicom("series", hu)
    file = folder / "IM002.dcm"
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    with pytest.raises(DataError, match=r"series: 1 of 4 files are cut short or hold no image [(]IM002\.dcm[)]"):
        open_series(folder)


def test_a_real_compressed_file_that_is_cut_short_is_refused(real, tmp_path):
    folder = shutil.copytree(real / "dicom" / "abdomen_ct", tmp_path / "series")
    file = sorted(folder.iterdir())[7]
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(DataError, match="1 of 20 files are cut short"):
        open_series(folder)


def test_real_folders_that_are_not_a_ct_series_are_refused(real):
    odd = real / "odd" / "dicom"
    for folder, why in (
        (odd / "dicom2nifti_failing" / "sliceincrement" / "001", r"most lie 5 mm apart [(]10 mm between"),
        (odd / "dicom2nifti_rgb", r"holds no slices of a CT [(]4 Secondary Capture Image[)]"),
        (real / "dicom" / "sts_ct_rtstruct" / "STS_001" / "dicom" / "mask", "no slices of a CT [(]1 RT Structure Set"),
        (odd / "lungmask", "the series is not a CT [(]Modality none"),
        (odd / "pydicom", r"of 28 files are cut short or hold no image [(]"),
        (
            real / "dicom" / "dcmqi_ct_seg" / "23x38x3" / "multiframe",
            "the file holds 3 frames [(]enhanced multi-frame DICOM[)], not one slice",
        ),
    ):
        with pytest.raises(DataError, match=why):
            read_volume(folder)


def test_other_files_beside_a_series_are_ignored(save_dicom, hu, tmp_path):
    folder = save_dicom("series", hu)
    for name in (".DS_Store", "Thumbs.db", "DICOMDIR", "notes.txt", "LICENSE"):
        (folder / name).write_text("x")
    assert np.array_equal(read_volume(folder)[0], hu)
    assert holds_dicom(folder)
    assert not holds_dicom(tmp_path)
    assert not is_dicom(tmp_path / "missing.dcm")
    with pytest.raises(DataError, match="the folder holds no DICOM files"):
        open_series(tmp_path)
