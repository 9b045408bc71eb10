import json
import re

import numpy as np
import pytest

from medseg.data import SlicePhantomSpec, check_dataset, convert, discover, prepare, write_slice_phantom
from medseg.errors import DataError


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        discover(tmp_path / "nowhere")


def test_an_empty_folder_says_what_it_should_hold(tmp_path):
    with pytest.raises(DataError, match=r"sXXXX/ct\.nii\.gz"):
        discover(tmp_path)


def test_a_file_is_refused(tmp_path):
    (tmp_path / "a.zip").touch()
    with pytest.raises(DataError, match="this file is no data set"):
        discover(tmp_path / "a.zip")


def test_a_prepared_set_is_known_by_folder_and_by_datalist(case, tmp_path):
    prepare(case, tmp_path / "out")
    assert discover(tmp_path / "out") == discover(tmp_path / "out" / "datalist.json")


def test_a_decathlon_folder_is_known(tmp_path, save):
    for name in ("imagesTr/a", "labelsTr/a", "imagesTs/b"):
        save(f"set/{name}.nii.gz", np.zeros((2, 2, 2), np.uint8))
    content = {
        "labels": {"0": "Background", "1": "liver"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
        "test": ["./imagesTs/b.nii.gz"],
    }
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(content))
    result = discover(tmp_path / "set")
    assert [case.id for case in result.cases] == ["a", "b"]
    assert result.structures == ("liver",)
    assert discover(tmp_path / "set" / "dataset.json") == result


def test_an_unknown_folder_is_described(tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(
        DataError,
        match=r"holds no data set [(]1 entries, for example notes[)].*datalist\.json.*dataset\.json.*label_map\.json",
    ):
        discover(tmp_path)


@pytest.mark.parametrize(
    ("files", "advice"),
    [
        (
            ["set/s1/ct.nii.gz", "set/s1/segmentations/liver.nii.gz"],
            r"Is \S*set meant, which is in the TotalSegmentator",
        ),
        (
            ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"],
            r"nnU-Net raw is nearest, and lacks dataset\.json, for example",
        ),
        (["Scans/a.nii.gz", "GT/a.nii.gz"], "rename Scans to images and GT to labels, and name the values"),
        (["image/a.nii", "masks/a.nii"], "rename image to images and masks to labels"),
        (
            ["p1/imaging.nii.gz", "p1/segmentation.nii.gz"],
            r"TotalSegmentator is nearest \(p1/imaging\.nii\.gz, p1/segm",
        ),
        (
            ["p1/mri.nii", "p1/seg/liver.nii"],
            r"rename the scan to p1/ct\.nii\.gz, and put binary masks into p1/segmentations/",
        ),
        (["a.nii.gz", "a_seg.nii.gz"], "Plain folders are nearest: put scans into images/ and label maps"),
        (["notes.txt"], r"for example notes\.txt\)\. The layouts are"),
    ],
)
def test_the_nearest_layout_is_named_in_training_and_check_alike(tmp_path, save, files, advice):
    for name in files:
        if name.endswith(".txt"):
            (tmp_path / name).touch()
        else:
            save(f"x/{name}", np.zeros((2, 2, 2), np.uint8))
    root = tmp_path / "x" if (tmp_path / "x").is_dir() else tmp_path
    with pytest.raises(DataError, match=advice):
        discover(root)
    finding = next(finding for finding in check_dataset(root, workers=1).findings if finding.code == "layout")
    assert finding.severity == "error"
    assert re.search(advice, f"{finding.message}. {finding.fix}")


def test_a_part_of_a_data_set_names_the_whole(case):
    for part in (case / "s0001", case / "s0001" / "segmentations"):
        with (
            pytest.raises(DataError, match=rf"Is {re.escape(str(part.parent))} meant")
            if part.name == "s0001"
            else (pytest.raises(DataError, match="the folder holds no data set"))
        ):
            discover(part)


@pytest.mark.parametrize("names", [("Images", "LABELS"), ("IMAGES", "Masks")])
def test_folders_of_a_layout_are_known_in_any_spelling(tmp_path, save, names):
    for name in names:
        save(f"set/{name}/a.nii.gz", np.zeros((2, 2, 2), np.uint8))
    (tmp_path / "set" / "label_map.json").write_text('{"0": "background", "1": "liver"}')
    assert [case.id for case in discover(tmp_path / "set").cases] == ["a"]


def test_slices_cannot_be_prepared_or_converted(tmp_path):
    root = write_slice_phantom(tmp_path / "set", SlicePhantomSpec(train=1, val=0, slices=1, size=(16, 16)))
    for work in (lambda: prepare(root, tmp_path / "out"), lambda: convert(root, tmp_path / "out", "nnunet")):
        with pytest.raises(DataError, match="the data set consists of 2D slices, which need no preparation"):
            work()
