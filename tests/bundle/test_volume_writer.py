"""What lies beside a mask, and which masks on disk are kept."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medseg.bundle import Outputs, Prediction
from medseg.bundle.volume_writer import existing_mask
from medseg.data import read_grid, read_volume
from medseg.errors import DataError
from medseg.labels import LabelMap

LABELS = LabelMap(["liver", "spleen", "kidney_left"])


@pytest.fixture
def scan(save):
    hu = np.random.default_rng(0).integers(-100, 200, (12, 10, 8)).astype(np.int16)
    return save("in/a.nii.gz", hu, np.diag([-2.0, -2, 3, 1]))


@pytest.fixture
def prediction(scan):
    label = np.zeros((12, 10, 8), np.uint8)
    label[2:6, 2:6, 2:6], label[7:, 7:, 5:] = 1, 2
    return Prediction(label, read_grid(scan), LABELS, scan)


def written(prediction, scan, tmp_path, outputs):
    mask = prediction.save(tmp_path / "out" / "a.nii.gz")
    return mask, outputs.write(replace(prediction, image=read_volume(scan)[0]), mask)


def test_split_statistics_and_preview_agree_with_the_label_map(prediction, scan, tmp_path):
    mask, files = written(prediction, scan, tmp_path, Outputs(split=True, stats=True, preview=True))
    assert {path.name for path in files} == {
        "liver.nii.gz", "spleen.nii.gz", "kidney_left.nii.gz", "a.statistics.json", "a.statistics.csv", "a.png",
    }  # fmt: skip
    whole = json.loads((mask.parent / "a.statistics.json").read_text())["structures"]
    for one in whole:
        part = nib.load(mask.parent / "a" / f"{one['structure']}.nii.gz")
        voxels = np.asanyarray(part.dataobj)
        assert part.get_data_dtype() == np.uint8
        assert np.array_equal(part.affine, nib.load(scan).affine)
        assert np.array_equal(voxels, prediction.label == one["index"])
        assert int(voxels.sum()) == one["voxels"]
    assert [one["touches_border"] for one in whole] == [False, True, False]
    with Image.open(mask.parent / "a.png") as picture:
        assert picture.width > 300


def test_only_what_is_missing_or_older_than_the_mask_is_written(prediction, scan, tmp_path):
    outputs = Outputs(split=True, stats=True)
    mask, files = written(prediction, scan, tmp_path, outputs)
    assert not outputs.missing(mask, LABELS.structures)
    (mask.parent / "a" / "spleen.nii.gz").unlink()
    assert [path.name for path in outputs.write(replace(prediction, image=read_volume(scan)[0]), mask)] == [
        "spleen.nii.gz"
    ]
    prediction.save(mask)
    assert len(outputs.missing(mask, LABELS.structures)) == len(files)


def test_a_subset_is_split_alone(prediction, scan, tmp_path):
    part = Prediction(prediction.label, prediction.grid, LABELS, scan, only=("spleen",))
    _, files = written(part, scan, tmp_path, Outputs(split=True))
    assert [path.name for path in files] == ["spleen.nii.gz"]


def test_a_complete_mask_counts_and_a_damaged_or_misplaced_one_does_not(prediction, scan, tmp_path, save):
    mask = tmp_path / "out" / "a.nii.gz"
    assert existing_mask(mask, scan, LABELS, None) is None
    prediction.save(mask)
    assert np.array_equal(existing_mask(mask, scan, LABELS, None).label, prediction.label)
    elsewhere = save("b.nii.gz", np.zeros((12, 10, 8), np.int16), np.diag([-2.0, -2, 4, 1]))
    assert existing_mask(mask, elsewhere, LABELS, None) is None
    mask.write_bytes(mask.read_bytes()[:-20])
    assert existing_mask(mask, scan, LABELS, None) is None


def test_a_mask_of_other_structures_is_an_error_and_stays(prediction, scan, tmp_path):
    mask = prediction.save(tmp_path / "out" / "a.nii.gz")
    for labels, only in ((LabelMap(["liver", "spleen"]), None), (LABELS, ("liver",))):
        with pytest.raises(
            DataError,
            match=r"a mask of other structures is there already\. Choose another folder with -o, or .*--overwrite",
        ):
            existing_mask(mask, scan, labels, only)
