"""What lies beside a mask, and which masks on disk are kept."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medseg.bundle import Outputs, Prediction
from medseg.bundle.volume_writer import VolumeWriter, existing_mask
from medseg.data import read_grid, read_volume
from medseg.errors import DataError
from medseg.findings import warning
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


class Killed(BaseException):
    """What stands for a kill: nothing handles it."""


STAGES = ("write_like", "save_statistics", "save_overview", "write_label_map", "utime")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_at_any_stage_leaves_nothing_that_is_taken_for_complete(
    prediction, scan, tmp_path, monkeypatch, stage, old
):
    """What a kill leaves is segmented again: a mask on disk has all that was asked for with it, and its confidence."""
    mask = tmp_path / "out" / "a.nii.gz"
    writer = VolumeWriter({scan: mask}, LABELS, Outputs(split=True, stats=True, preview=True))
    full = replace(prediction, image=read_volume(scan)[0], confidence={"liver": 0.9, "spleen": 0.8})
    if old:  # a mask of before, which --overwrite replaces
        writer.write(scan, replace(full, label=np.zeros_like(full.label), confidence={}), True)
    module = {"write_label_map": "medseg.bundle.prediction", "utime": "os"}.get(stage, "medseg.bundle.volume_writer")

    def kill(*_, **__):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(f"{module}.{stage}", kill)
        writer.write(scan, full, True)
    writer.begin()
    existing = writer.existing(scan)
    writer.write(scan, existing or full, existing is None)
    content = json.loads((mask.parent / "a.statistics.json").read_text())
    assert [row["confidence"] for row in content["structures"]] == [0.9, 0.8, None]
    assert np.array_equal(read_volume(mask)[0], full.label)
    again = writer.existing(scan)
    assert again is not None
    assert again.image is None  # nothing is left to write
    assert not [path for path in mask.parent.rglob("*") if "partial" in path.name]


def beside(mask, name):
    return mask.with_name(f"a.statistics.{name}")


DAMAGE = {
    "no statistics": lambda mask: [beside(mask, kind).unlink() for kind in ("json", "csv")],
    "half a file": lambda mask: beside(mask, "json").write_text(beside(mask, "json").read_text()[:200]),
    "statistics of another mask": lambda mask: beside(mask, "json").write_text(
        beside(mask, "json").read_text().replace('"voxels": 64', '"voxels": 63')
    ),
    "statistics without a mask": lambda mask: mask.unlink(),
    "half a mask": lambda mask: mask.write_bytes(mask.read_bytes()[:-20]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_the_network_alone_knows_is_segmented_again(prediction, scan, tmp_path, damage):
    mask = tmp_path / "out" / "a.nii.gz"
    writer = VolumeWriter({scan: mask}, LABELS, Outputs(stats=True))
    writer.write(scan, replace(prediction, image=read_volume(scan)[0], confidence={"liver": 0.9}), True)
    assert writer.existing(scan) is not None
    DAMAGE[damage](mask)
    assert writer.existing(scan) is None


def test_a_table_is_made_again_with_the_confidence_and_the_warnings_of_before(prediction, scan, tmp_path):
    mask = tmp_path / "out" / "a.nii.gz"
    writer = VolumeWriter({scan: mask}, LABELS, Outputs(stats=True))
    doubt = warning("not-hu", scan, "its values run from 0 to 1", "Convert it again.")
    full = replace(prediction, image=read_volume(scan)[0], confidence={"liver": 0.9}, warnings=(doubt,))
    writer.write(scan, full, True)
    json_text, table = beside(mask, "json").read_text(), beside(mask, "csv").read_text()
    beside(mask, "csv").unlink()
    writer.write(scan, writer.existing(scan), False)
    assert (beside(mask, "json").read_text(), beside(mask, "csv").read_text()) == (json_text, table)
    assert table.splitlines()[1].endswith(",0.9,not-hu")
