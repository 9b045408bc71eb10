import json
import logging

import numpy as np
import pytest

from medseg.cases import Split
from medseg.data import discover
from medseg.data.layouts.nnunet import is_description
from medseg.errors import DataError, LabelError
from medseg.labels import LabelMap

DESCRIPTION = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "spleen": 2, "liver": 1},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


@pytest.fixture
def raw(tmp_path, save):
    """A raw nnU-Net folder: two cases to train on, one to test."""
    for name in ("imagesTr/a_0000", "imagesTr/b_1_0000", "labelsTr/a", "labelsTr/b_1", "imagesTs/c_0000"):
        save(f"set/{name}.nii.gz", np.zeros((2, 2, 2), np.uint8))
    describe(tmp_path / "set")
    return tmp_path / "set"


def describe(root, **changes):
    content = {**DESCRIPTION, **changes}
    (root / "dataset.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def test_cases_are_found_by_name(raw):
    result = discover(raw)
    assert [case.id for case in result.cases] == ["a", "b_1", "c"]
    assert result.labels == LabelMap(["liver", "spleen"])
    assert result.case("b_1").image == raw / "imagesTr" / "b_1_0000.nii.gz"
    assert result.case("a").annotated == ("liver", "spleen")
    assert result.case("c").label is None
    assert result.split == Split(test=("c",))
    assert discover(raw / "dataset.json") == result


def test_training_cases_without_a_split_are_split_by_hash(raw):
    split = discover(raw).with_split().split
    assert sorted(split.train + split.val) == ["a", "b_1"]
    assert split.test == ("c",)


def test_the_first_fold_is_the_split(raw, caplog):
    (raw / "splits_final.json").write_text('[{"train": ["b_1"], "val": ["a"]}, {"train": ["a"], "val": ["b_1"]}]')
    assert discover(raw).split == Split(("b_1",), ("a",), ("c",))
    (raw / "splits_final.json").write_text('[{"train": ["b_1"], "val": []}]')
    with caplog.at_level(logging.WARNING):
        discover(raw)
    assert "1 cases are not in its first fold and are left out, a first" in caplog.text


@pytest.mark.parametrize("text", ["[]", "{}", '[{"train": ["a"]}]', "no"])
def test_broken_folds_are_refused(raw, text):
    (raw / "splits_final.json").write_text(text)
    with pytest.raises(DataError, match=r"splits_final\.json: the file (is no list of folds|cannot be read as JSON)"):
        discover(raw)


def test_a_fold_that_names_no_case_is_refused(raw):
    (raw / "splits_final.json").write_text('[{"train": ["a", "z"], "val": ["b_1"]}]')
    with pytest.raises(DataError, match="its first fold names 'z', which is no case of imagesTr"):
        discover(raw)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("labelsTr/a.nii.gz", r"a_0000\.nii\.gz: the image has no label map labelsTr/a\.nii\.gz"),
        ("imagesTr/a_0000.nii.gz", r"labelsTr/a\.nii\.gz: the label map has no image imagesTr/a_0000\.nii\.gz"),
    ],
)
def test_a_file_without_its_partner_is_named(raw, gone, message):
    (raw / gone).unlink()
    with pytest.raises(DataError, match=message):
        discover(raw)


def test_truth_of_a_test_case_is_taken_and_needs_its_image(raw, save):
    save("set/labelsTs/c.nii.gz", np.zeros((2, 2, 2), np.uint8))
    assert discover(raw).case("c").label == raw / "labelsTs" / "c.nii.gz"
    save("set/labelsTs/d.nii.gz", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(DataError, match=r"labelsTs/d\.nii\.gz: the label map has no image"):
        discover(raw)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel_names": {"0": "T1", "1": "T2"}}, "channel_names must name exactly one channel"),
        ({"file_ending": ".png"}, "file_ending must be .nii.gz or .nii"),
        (
            {"labels": {"background": 0, "whole": [1, 2]}},
            r"label 'whole': medseg does not train on regions of several values \(got \[1, 2\]",
        ),
        ({"labels": {"background": 0, "liver": 1, "ignore": 2}}, "label 'ignore'"),
        ({"labels": {"background": 0, "liver": 1, "spleen": -3}}, r"the values must run from 0 \(background\)"),
        ({"labels": {"background": 0, "liver": 1, "spleen": 1}}, "spleen have the same value 1"),
        ({"labels": {"background": 0, "liver": "one"}}, "label 'liver': the value must be one integer"),
        ({"labels": None}, "'labels' must map names to values"),
    ],
)
def test_unsupported_labels_and_channels_are_one_error(raw, changes, message):
    describe(raw, **changes)
    with pytest.raises((DataError, LabelError), match=message):
        discover(raw)


@pytest.mark.parametrize("name", ["d", "d_0001"])
def test_an_image_without_the_channel_is_refused(raw, save, name):
    save(f"set/imagesTr/{name}.nii.gz", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(DataError, match=rf"{name}\.nii\.gz: (an image must be named|it is an image of channel _0001)"):
        discover(raw)


def test_a_wrong_number_of_cases_is_warned_about(raw, caplog):
    describe(raw, numTraining=5)
    with caplog.at_level(logging.WARNING):
        discover(raw)
    assert "numTraining is 5, but there are 2 cases" in caplog.text


def test_cases_may_be_listed_one_by_one(raw):
    listed = {"a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    describe(raw, dataset=listed, numTraining=1)
    assert [case.id for case in discover(raw).cases] == ["a", "c"]
    describe(raw, dataset={"a": {"images": ["x.nii.gz"], "label": "labelsTr/a.nii.gz"}})
    with pytest.raises(DataError, match=r"x\.nii\.gz: dataset\.json names a file that does not exist"):
        discover(raw)
    describe(raw, dataset={"a": {"images": ["x", "y"], "label": "z"}})
    with pytest.raises(DataError, match="case a needs one image and a label"):
        discover(raw)


def test_annotated_structures_are_read_back(raw):
    describe(raw, annotated={"a": ["liver"]})
    assert discover(raw).case("a").annotated == ("liver",)
    assert discover(raw).case("b_1").annotated == ("liver", "spleen")


def test_a_fold_that_names_an_unlisted_case_is_refused(raw):
    listed = {"a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    describe(raw, dataset=listed, numTraining=1)
    (raw / "splits_final.json").write_text('[{"train": ["a", "b_1"], "val": []}]')
    with pytest.raises(DataError, match="its first fold names 'b_1', which is no case of imagesTr"):
        discover(raw)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotated": ["a"]}, "'annotated' must give each case a list of structures"),
        ({"annotated": {"a": "liver"}}, "'annotated' must give each case a list of structures"),
        ({"patients": [1]}, "'patients' must give each case its patient"),
    ],
)
def test_what_is_annotated_and_whose_it_is_is_never_guessed(raw, changes, message):
    describe(raw, **changes)
    with pytest.raises(DataError, match=f"dataset.json: {message}"):
        discover(raw)


def test_missing_folders_and_empty_ones_are_named(raw):
    for path in [*(raw / "imagesTr").iterdir(), *(raw / "labelsTr").iterdir()]:
        path.unlink()
    with pytest.raises(DataError, match="imagesTr: the folder holds no images"):
        discover(raw)
    (raw / "labelsTr").rmdir()
    with pytest.raises(DataError, match="labelsTr: there is no such folder"):
        discover(raw)


def test_names_that_differ_in_case_only_are_refused(raw, save):
    save("set/imagesTr/A_0000.nii.gz", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(DataError, match="has the same name, up to suffix, accents"):
        discover(raw)


def test_a_case_that_trains_and_tests_is_refused(raw, save):
    save("set/imagesTs/a_0000.nii.gz", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(DataError, match="is a training case, too"):
        discover(raw)


def test_a_description_is_told_from_the_decathlons():
    assert is_description(DESCRIPTION)
    assert not is_description({"labels": {"0": "background", "1": "liver"}, "training": []})
    assert not is_description([])
