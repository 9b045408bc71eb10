import numpy as np
import pytest

from medseg.data import read_grid, read_volume
from medseg.data.scan_files import find_scans, holds_images_2d, scan_name
from medseg.errors import DataError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_gives_the_nifti_files_in_it(tmp_path):
    touch(tmp_path, "b.nii.gz", "a.nii", "notes.txt", "deeper/c.nii.gz")
    assert [path.name for path in find_scans(tmp_path)] == ["a.nii", "b.nii.gz"]


def test_a_data_set_gives_the_ct_of_each_case_and_no_masks(case):
    assert find_scans(case) == [case / "s0001" / "ct.nii.gz"]
    assert find_scans(case / "s0001") == [case / "s0001" / "ct.nii.gz"]


def test_scans_named_ct_are_called_after_their_folders(tmp_path):
    touch(tmp_path, "s1/ct.nii.gz", "s2/ct.nii.gz")
    found = find_scans([tmp_path / "s1" / "ct.nii.gz", tmp_path / "s2" / "ct.nii.gz"])
    assert [scan_name(path) for path in found] == ["s1", "s2"]


def test_two_scans_whose_masks_would_have_one_name_are_refused(tmp_path):
    touch(tmp_path, "a/patient.nii.gz", "b/Patient.nii.gz")
    with pytest.raises(DataError, match="its mask would have the same name as that of"):
        find_scans([tmp_path / "a" / "patient.nii.gz", tmp_path / "b" / "Patient.nii.gz"])


@pytest.mark.parametrize("names", [("s1/ct.nii", "s1/ct.nii.gz"), ("a.nii", "A.NII.GZ"), ("s1/CT.nii", "s1/ct.nii")])
def test_two_files_of_one_name_are_refused(tmp_path, names):
    touch(tmp_path, *names)
    with pytest.raises(DataError, match="same name"):
        find_scans(tmp_path)


def test_what_systems_leave_behind_is_no_scan(tmp_path):
    touch(
        tmp_path, "a.NII.GZ", "._a.NII.GZ", ".DS_Store", "Thumbs.db", "__MACOSX/a.nii.gz", "s1/._ct.nii.gz", "s1/CT.NII"
    )
    assert [path.name for path in find_scans(tmp_path / "s1")] == ["CT.NII"]
    (tmp_path / "s1" / "CT.NII").unlink()
    assert [path.name for path in find_scans(tmp_path, recursive=True)] == ["a.NII.GZ"]


def test_the_same_scan_named_twice_is_one_scan(save):
    path = save("a.nii.gz", np.zeros((2, 2, 2), np.int16))
    assert find_scans([path, path]) == [path]


def test_nothing_to_segment_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        find_scans(tmp_path / "missing.nii.gz")
    with pytest.raises(DataError, match="the folder holds no scans"):
        find_scans(tmp_path)


def test_scans_in_folders_below_are_taken_on_request_and_the_error_says_so(tmp_path):
    touch(tmp_path, "p1/portal.nii.gz", "p2/deep/venous.nrrd", "p3/._native.nii.gz")
    with pytest.raises(DataError, match=r"2 lie in folders below, such as .*portal.nii.gz: add --recursive"):
        find_scans(tmp_path, dicom=True)
    assert [scan_name(scan) for scan in find_scans(tmp_path, recursive=True)] == ["portal", "venous"]
    touch(tmp_path, "p4/portal.nii.gz")
    with pytest.raises(DataError, match="its mask would have the same name"):
        find_scans(tmp_path, recursive=True)


def test_folders_with_other_dicom_objects_alone_are_no_scans(tmp_path, save_dicom):
    hu = np.zeros((4, 3, 2), np.int16)
    scan = save_dicom("study/ct", hu)
    save_dicom("study/rtstruct", hu[:, :, :1], SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3", Modality="RTSTRUCT")
    save_dicom("study/capture", hu[:, :, :1], SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    assert find_scans(tmp_path / "study", dicom=True) == [scan]


def test_dicom_folders_are_scans_where_they_are_asked_for(tmp_path, save_dicom):
    hu = np.zeros((4, 3, 2), np.int16)
    first, second = save_dicom("study/1.2.840", hu), save_dicom("study/b", hu)
    assert find_scans(first, dicom=True) == [first]
    assert find_scans(tmp_path, dicom=True) == [first, second]
    assert [scan_name(path) for path in (first, second)] == ["1.2.840", "b"]
    with pytest.raises(DataError, match=r"the folder holds no scans [(]\.nii\.gz, .*\.mhd[)]\."):
        find_scans(first)
    with pytest.raises(DataError, match=r"this is a single DICOM file, not a volume\. Give the folder"):
        find_scans(first / "IM001.dcm", dicom=True)
    touch(first, "a.nii.gz")
    with pytest.raises(DataError, match="the folder holds both volume files and DICOM files"):
        find_scans(first, dicom=True)


def test_a_scan_is_read_whatever_its_kind(save, save_dicom):
    hu = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    folder, file = save_dicom("a", hu), save("b.nii.gz", hu, np.diag([2.0, 2, 2, 1]))
    for path, spacing in ((folder, (1.0, 1.0, 3.0)), (file, (2.0, 2.0, 2.0))):
        voxels, grid = read_volume(path)
        assert np.array_equal(voxels, hu)
        assert read_grid(path).matches(grid)
        assert grid.spacing == spacing


def test_folders_of_images_are_told_from_scans_with_previews(tmp_path, save, save_dicom):
    touch(tmp_path, "pictures/day1/a.png", "pictures/notes.txt", "hidden/._a.png", "empty/train.csv")
    assert holds_images_2d(tmp_path / "pictures")
    assert holds_images_2d(tmp_path / "pictures" / "day1" / "a.png")
    assert not holds_images_2d(tmp_path / "pictures" / "notes.txt")
    for name in ("hidden", "empty"):
        assert not holds_images_2d(tmp_path / name)
    scan = save("scans/a.nii.gz", np.zeros((2, 2, 2), np.int16))
    assert not holds_images_2d(scan)
    touch(tmp_path, "scans/previews/a.png", "scans/a.png")  # as medseg predict --preview leaves them
    assert not holds_images_2d(tmp_path / "scans")
    series = save_dicom("series", np.zeros((4, 3, 2), np.int16))
    touch(tmp_path, "series/look.png")
    assert not holds_images_2d(series)
    assert not holds_images_2d(series / "IM001.dcm")
    (series / "IM001.dcm").rename(series / "IM001")  # whatever it is called
    (series / "IM002.dcm").unlink()
    assert not holds_images_2d(series)
    (series / "IM001").unlink()
    assert holds_images_2d(series)


def test_what_is_passed_over_in_a_folder_is_said(tmp_path, save_dicom, caplog):
    hu = np.zeros((4, 3, 2), np.int16)
    series = save_dicom("both/study/ct", hu).parent / "ct"
    touch(tmp_path, "both/study/nifti/a.nii.gz", "beside/b.nii.gz", "beside/notes/c.txt")
    direct = save_dicom("beside/ct", hu)
    assert find_scans(tmp_path / "both", dicom=True) == [series]
    assert "1 volume files in folders below are passed over, such as " in caplog.text
    caplog.clear()
    assert [path.name for path in find_scans(tmp_path / "beside", dicom=True)] == ["b.nii.gz"]
    assert f"1 folders with DICOM files are passed over, such as {direct}. Add --recursive" in caplog.text
    caplog.clear()
    assert [path.name for path in find_scans(tmp_path / "both", True, recursive=True)] == ["a.nii.gz", "ct"]
    assert [path.name for path in find_scans(tmp_path / "beside", True, recursive=True)] == ["b.nii.gz", "ct"]
    assert find_scans(direct, dicom=True) == [direct]
    assert not caplog.text


@pytest.mark.parametrize(("images", "labels"), [("imagesTr", "labelsTr"), ("images", "masks"), ("Images", "Labels")])
def test_label_maps_beside_images_are_no_scans(tmp_path, caplog, images, labels):
    touch(tmp_path, f"{images}/a.nii.gz", f"{labels}/a.nii.gz", "labels_of_no_images/b.nii.gz")
    assert [path.name for path in find_scans(tmp_path, recursive=True)] == ["a.nii.gz", "b.nii.gz"]
    assert "1 label maps beside images are passed over" in caplog.text
    assert find_scans(tmp_path / labels) == [tmp_path / labels / "a.nii.gz"]  # named itself
