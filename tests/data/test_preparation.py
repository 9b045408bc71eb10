import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from medseg.cases import read_datalist
from medseg.data import Preparation, discover, merge_masks, prepare
from medseg.errors import DataError, OutputError
from medseg.labels import LabelMap

LABELS = LabelMap(["liver", "spleen", "kidney_left"])
BOTH = {"train": ["s0001"], "val": ["s0001"]}


def load(path):
    return np.asanyarray(nib.load(path).dataobj)


def test_a_prepared_set_holds_images_labels_names_and_split(phantom, tmp_path):
    made = prepare(phantom, tmp_path / "out", Preparation("organs"))
    out = tmp_path / "out"
    assert made.cases == ("p0000", "p0001", "p0002", "p0003")
    labels = LabelMap.load(out / "label_map.json")
    assert labels == LabelMap.totalsegmentator("organs")
    found = read_datalist(out / "datalist.json")
    assert found.split == discover(phantom).split
    for case in found.cases:
        assert case.image.read_bytes() == (phantom / case.id / "ct.nii.gz").read_bytes()
        masks = discover(phantom).case(case.id).masks
        assert np.array_equal(load(case.label), merge_masks(case.image, masks, labels).label)
    assert sum(made.overlaps.values()) > 0
    assert json.loads((out / "datalist.json").read_text())["numTest"] == 1


def test_a_folder_inside_the_source_is_refused(case):
    with pytest.raises(DataError, match="must not lie inside the source"):
        prepare(case, case / "out")
    assert not (case / "out").exists()


def test_an_output_that_cannot_be_written_is_refused(case, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="must be a folder that can be written"):
        prepare(case, tmp_path / "file" / "out")


def test_a_broken_case_is_listed_and_the_rest_goes_on(case, tmp_path, save):
    shutil.copytree(case / "s0001", case / "s0002")
    save("set/s0002/segmentations/spleen.nii.gz", np.zeros((1, 1, 1), np.uint8))
    made = prepare(case, tmp_path / "out")
    assert made.cases == ("s0001",)
    assert list(made.failed) == ["s0002"]
    assert "spleen" in made.failed["s0002"]
    assert [path.name for path in (tmp_path / "out").rglob("s0002*")] == []
    assert "s0002" in json.loads((tmp_path / "out" / "fingerprint.json").read_text())["failed"]


def test_a_set_in_which_every_case_is_broken_is_an_error(case, tmp_path, save):
    save("set/s0001/segmentations/spleen.nii.gz", np.zeros((1, 1, 1), np.uint8))
    with pytest.raises(DataError, match="at least one case that can be prepared"):
        prepare(case, tmp_path / "out")
    assert not (tmp_path / "out" / "datalist.json").exists()
