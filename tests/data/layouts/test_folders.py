import json
from pathlib import Path

import numpy as np
import pytest

from medseg.data import discover
from medseg.data.layouts.folders import pair
from medseg.errors import DataError, LabelError
from medseg.file_names import files_by_name
from medseg.labels import LabelMap


@pytest.fixture
def plain(tmp_path, save):
    """Two cases in plain folders; the files of the second carry the endings that tools add."""
    for name in ("images/a.nii.gz", "labels/a.nii.gz", "images/b_0000.nii.gz", "labels/b_seg.nii"):
        save(f"set/{name}", np.zeros((2, 2, 2), np.uint8))
    (tmp_path / "set" / "label_map.json").write_text('{"0": "background", "1": "liver"}')
    return tmp_path / "set"


def test_files_are_paired_by_name(plain):
    result = discover(plain)
    assert [(case.id, case.image.name, case.label.name) for case in result.cases] == [
        ("a", "a.nii.gz", "a.nii.gz"),
        ("b", "b_0000.nii.gz", "b_seg.nii"),
    ]
    assert result.labels == LabelMap(["liver"])
    assert result.cases[0].annotated == ("liver",)
    assert not result.split


def test_masks_serve_as_labels_but_not_beside_a_labels_folder(plain):
    (plain / "labels").rename(plain / "masks")
    assert len(discover(plain).cases) == 2
    (plain / "labels").mkdir()
    with pytest.raises(DataError, match="the folder has both labels/ and masks/"):
        discover(plain)


def test_missing_label_names_are_an_error_with_an_example(plain):
    (plain / "label_map.json").unlink()
    with pytest.raises(
        DataError, match=r'label_map\.json: this file must name the values .* \{"0": "background", "1": "liver"'
    ):
        discover(plain)


def test_a_broken_label_map_names_itself(plain):
    (plain / "label_map.json").write_text(json.dumps({"1": "liver"}))
    with pytest.raises(LabelError, match=r"label_map\.json"):
        discover(plain)


@pytest.mark.parametrize("folder", ["images", "labels"])
def test_an_unpaired_file_is_named_and_never_paired_by_order(plain, folder):
    (plain / folder / "a.nii.gz").unlink()
    with pytest.raises(DataError, match=r"a\.nii\.gz: the (image has no label map|label map has no image) named a"):
        discover(plain)


def test_a_similar_partner_is_suggested():
    pairs, findings = pair({"patient1": Path("patient1.nii")}, {"patient01": Path("patient01.nii")})
    assert pairs == {}
    assert [finding.fix for finding in findings] == ["Is 'patient01.nii' meant?", "Is 'patient1.nii' meant?"]


@pytest.mark.parametrize("second", ["b_mask.nii.gz", "a_seg.nii.gz"])
def test_two_labels_of_one_image_are_refused(plain, save, second):
    save(f"set/labels/{second}", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(DataError, match=r"it is a second file of its case, beside \w+\.nii(\.gz)?"):
        discover(plain)


def test_an_ending_that_is_part_of_the_name_stays():
    result, _ = pair({"a_mask": Path("i/a_mask.nii")}, {"a_mask": Path("l/a_mask.nii")})
    assert list(result) == ["a_mask"]


@pytest.mark.parametrize("second", ["A.nii.gz", "a.nii"])
def test_names_that_some_file_systems_take_for_one_are_refused(plain, save, second):
    save(f"set/images/{second}", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(DataError, match="has the same name, up to suffix, accents"):
        discover(plain)


def test_hidden_and_other_files_are_no_images(plain):
    (plain / "images" / "._a.nii.gz").write_bytes(b"mac")
    (plain / "images" / "notes.txt").touch()
    assert sorted(files_by_name(plain / "images")) == ["a", "b_0000"]


def test_folders_without_nifti_are_refused(plain):
    for path in (plain / "images").iterdir():
        path.rename(path.with_suffix(".png"))
    with pytest.raises(DataError, match="images: the folder holds no NIfTI files"):
        discover(plain)
