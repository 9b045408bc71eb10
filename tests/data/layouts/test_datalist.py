import json
import os
from pathlib import Path

import pytest

from medseg.cases import Split
from medseg.data import discover
from medseg.data.layouts.datalist import write_datalist
from medseg.errors import DataError
from medseg.labels import LabelMap
from tests.made_inputs import liver_cases


def test_a_datalist_is_read_back_as_it_was_written(tmp_path):
    written = liver_cases(tmp_path, "abc")
    write_datalist(tmp_path / "datalist.json", written, LabelMap(["liver"]))
    read = discover(tmp_path / "datalist.json")
    assert read == written
    content = json.loads((tmp_path / "datalist.json").read_text())
    assert content["training"][0]["image"] == "images/a.nii.gz"
    assert content["numTraining"] == 2


def test_a_datalist_on_another_drive_names_whole_paths(tmp_path, monkeypatch):
    def other_drives(path, start=None):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    written = liver_cases(tmp_path / "scans", "abc")
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "relpath", other_drives)
        write_datalist(tmp_path / "lists" / "datalist.json", written, LabelMap(["liver"]))
    content = json.loads((tmp_path / "lists" / "datalist.json").read_text())
    assert content["training"][0]["image"] == (tmp_path / "scans" / "images" / "a.nii.gz").as_posix()
    assert discover(tmp_path / "lists" / "datalist.json").cases == written.cases


def test_a_datalist_moves_with_its_folder(tmp_path):
    write_datalist(tmp_path / "one" / "datalist.json", liver_cases(tmp_path / "one", "abc"), LabelMap(["liver"]))
    (tmp_path / "one").rename(tmp_path / "two")
    assert discover(tmp_path / "two" / "datalist.json").cases[0].image.is_file()


def test_a_datalist_whose_files_moved_says_which(tmp_path):
    write_datalist(tmp_path / "datalist.json", liver_cases(tmp_path, "abc"), LabelMap(["liver"]))
    (tmp_path / "labels" / "b.nii.gz").unlink()
    with pytest.raises(DataError, match=r"b\.nii\.gz: datalist\.json names a file that does not exist"):
        discover(tmp_path / "datalist.json")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"training": []}', '{"labels": {"0": "background", "1": "liver"}, "training": [{}]}']
)
def test_a_broken_datalist_names_itself(tmp_path, text):
    (tmp_path / "datalist.json").write_text(text)
    with pytest.raises(DataError, match=r"datalist\.json"):
        discover(tmp_path / "datalist.json")


def test_annotated_must_be_a_list(tmp_path):
    path = tmp_path / "datalist.json"
    write_datalist(path, liver_cases(tmp_path, "abc"), LabelMap(["liver"]))
    content = json.loads(path.read_text())
    content["training"][1]["annotated"] = "liver"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="'annotated' of case b must be a list of structures, and is liver"):
        discover(path)


def decathlon(folder: Path, **changes: object) -> Path:
    """A folder of the Medical Segmentation Decathlon with two cases to train on and one to test."""
    for name in ("imagesTr/a_1", "labelsTr/a_1", "imagesTr/b.x", "labelsTr/b.x", "imagesTs/c"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.nii.gz").write_bytes(name.encode())
    training = [{"image": f"./imagesTr/{id}.nii.gz", "label": f"./labelsTr/{id}.nii.gz"} for id in ("b.x", "a_1")]
    content = {
        "modality": {"0": "CT"},
        "labels": {"2": "cancer", "0": "Background", "1": "pancreas"},
        "training": training,
        "test": ["./imagesTs/c.nii.gz"],
        **changes,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder / "dataset.json"


def test_a_decathlon_is_read_as_it_comes(tmp_path):
    result = discover(decathlon(tmp_path))
    assert [case.id for case in result.cases] == ["a_1", "b.x", "c"]
    assert result.labels == LabelMap(["pancreas", "cancer"])
    assert result.case("a_1").annotated == ("pancreas", "cancer")
    assert result.case("c").label is None
    assert result.split == Split(test=("c",))
    split = result.with_split().split
    assert sorted(split.train + split.val) == ["a_1", "b.x"]
    assert split.test == ("c",)


def test_test_cases_may_be_dictionaries_with_labels(tmp_path):
    test = [{"image": "imagesTs/c.nii.gz", "label": "labelsTr/a_1.nii.gz"}]
    assert discover(decathlon(tmp_path, test=test)).case("c").label == tmp_path / "labelsTr" / "a_1.nii.gz"


def test_resource_forks_of_macos_are_no_cases(tmp_path):
    training = [{"image": f"./imagesTr/{id}.nii.gz", "label": f"./labelsTr/{id}.nii.gz"} for id in ("a_1", "._a_1")]
    assert [case.id for case in discover(decathlon(tmp_path, training=training)).cases] == ["a_1", "c"]


@pytest.mark.parametrize("labels", [{"1": "liver"}, {"0": "unlabelled", "1": "liver"}])
def test_the_background_may_be_missing_or_have_another_name(tmp_path, labels):
    assert discover(decathlon(tmp_path, labels=labels)).labels == LabelMap(["liver"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": {"0": "FLAIR", "1": "T1w"}}, r"dataset\.json: the images have 2 channels \(FLAIR, T1w\)"),
        ({"labels": {"0": "background", "-2": "liver"}}, r"the values must run from 0 \(background\)"),
        ({"labels": {"0": "background", "1": "Background", "2": "background"}}, "label map"),
        ({"labels": ["liver"]}, "the file is no datalist"),
        ({"test": 3}, "the file is no datalist"),
        ({"test": [3]}, "an entry names no 'image': 3"),
        ({"test": ["./imagesTs/gone.nii.gz"]}, r"gone\.nii\.gz: dataset\.json names a file that does not exist"),
        ({"test": ["./imagesTr/a_1.nii.gz"]}, "two entries have the id 'a_1'"),
    ],
)
def test_an_invalid_decathlon_is_one_error(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        discover(decathlon(tmp_path, **changes))


def test_two_cases_of_one_file_name_need_ids_of_their_own(tmp_path):
    for id in ("s1", "s2"):
        (tmp_path / id).mkdir()
        (tmp_path / id / "ct.nii.gz").touch()
    entries = [{"image": f"{id}/ct.nii.gz"} for id in ("s1", "s2")]
    path = decathlon(tmp_path, training=entries)
    with pytest.raises(DataError, match=r"two entries have the id 'ct'\. .*a 'case' of its own"):
        discover(path)
    path = decathlon(tmp_path, training=[{"case": id, "image": f"{id}/ct.nii.gz"} for id in ("s1", "s2")])
    assert [case.id for case in discover(path).cases] == ["c", "s1", "s2"]
