import json

import numpy as np
import pytest

from medseg.data import SlicePhantomSpec, convert, discover, prepare, write_slice_phantom
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


def test_slices_cannot_be_prepared_or_converted(tmp_path):
    root = write_slice_phantom(tmp_path / "set", SlicePhantomSpec(train=1, val=0, slices=1, size=(16, 16)))
    for work in (lambda: prepare(root, tmp_path / "out"), lambda: convert(root, tmp_path / "out", "nnunet")):
        with pytest.raises(DataError, match="the data set consists of 2D slices, which need no preparation"):
            work()
