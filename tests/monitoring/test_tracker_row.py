"""What a tracker gets of a run: nothing that names a path or a person."""

import json

import pytest

from medseg.monitoring.tracker_row import tracker_config, tracker_row, without_paths


def test_settings_versions_and_data_without_paths(finished):
    found = tracker_config(finished)
    assert found["lr"] == 0.01
    assert found["batch"] == "$@batch_size"
    assert found["reader"] == {"_target_": "Reader"}
    assert found["load"] == "$open('(a file)')"
    assert found["git"] == {"commit": "abc", "dirty": True}
    assert found["data"] == "f1n9"
    assert found["cases"] == {"train": 2, "val": 1}
    text = json.dumps(found)
    assert not [word for word in ("max", "/usr", str(finished), "the-host", "s1", "medseg-run") if word in text]


def test_a_run_without_config_is_described_by_its_record(finished):
    (finished / "configs" / "train.json").unlink()
    assert set(tracker_config(finished)) == {"bundle", "data", "git", "cases"}


def test_the_bundles_own_config_keeps_what_it_computes(repository, tmp_path):
    (tmp_path / "configs").mkdir()
    config = json.loads((repository / "bundles" / "unet2d" / "configs" / "train.json").read_text())
    (tmp_path / "configs" / "train.json").write_text(json.dumps(config))
    found = tracker_config(tmp_path)
    assert found["network_def"] == config["network_def"]
    assert found["train"] == config["train"]  # nothing in it is taken for a path
    assert "output_dir" not in found


def test_every_kind_of_row_has_epoch_and_iteration(lab):
    for row in lab.rows_of_a_run()[1:]:
        values = tracker_row(row).values
        assert (values["epoch"], values["iteration"]) == (row["epoch"], row["iteration"])


def test_numbers_are_named_by_their_path_and_nulls_left_out():
    row = {"kind": "validation", "epoch": 2, "mean_dice": 0.5, "dice": {"liver": 0.4, "spleen": None}, "best_dice": 0.5}
    found = tracker_row({**row, "best_epoch": 2, "f1": {"liver": 0.7}})
    assert found.values == {
        "epoch": 2,
        "val/mean_dice": 0.5,
        "val/dice/liver": 0.4,
        "val/best_dice": 0.5,
        "val/best_epoch": 2,
        "val/f1/liver": 0.7,
    }
    assert found.summary == {"best_dice": 0.5, "best_epoch": 2}
    system = tracker_row({"kind": "system", "cpu": 0.5, "gpu": [{"load": 0.1}, {"load": 0.9}]}).values
    assert system == {"system/cpu": 0.5, "system/gpu/0/load": 0.1, "system/gpu/1/load": 0.9}


def test_pictures_histograms_and_alerts():
    image = tracker_row({"kind": "image", "case": "s1", "file": "previews/a.png", "caption": "s1, slice 3"})
    assert image.images == [("val/images/s1", "previews/a.png", "s1, slice 3")]
    two = {"edges": [0, 1, 2], "counts": [3, 4]}
    both = tracker_row({"kind": "histogram", "parameters": {"conv": two}, "gradients": {"conv": two}})
    assert both.histograms == {"parameters/conv": ([3, 4], [0, 1, 2]), "gradients/conv": ([3, 4], [0, 1, 2])}
    warning = tracker_row({"kind": "warning", "level": "error", "title": "Disk", "text": "/tmp/a/b: must have room"})
    assert warning.alerts == [("error", "Disk", "(a file): must have room")]


@pytest.mark.parametrize(("state", "level"), [("failed", "error"), ("interrupted", "warning")])
def test_an_unfinished_end_is_an_alert_without_its_reason(state, level):
    found = tracker_row({"kind": "end", "state": state, "reason": "no such file: /home/max/x"})
    assert [alert[0] for alert in found.alerts] == [level]
    assert "max" not in str(found)
    assert tracker_row({"kind": "end", "state": "finished"}).alerts == []


def test_a_scan_that_was_segmented():
    row = {"kind": "case", "case": "s1", "seconds": 2.0, "volume_ml": {"liver": 1500.0}, "file": "../s1.png"}
    found = tracker_row(row)
    assert found.values == {"case/seconds": 2.0, "case/volume_ml/liver": 1500.0, "case/id": "s1"}
    assert found.images == [("case/images/s1", "../s1.png", "s1")]


def test_an_unknown_kind_gives_its_numbers():
    assert tracker_row({"kind": "new", "epoch": 1, "deep": {"a": True}, "b": "text"}).values == {
        "epoch": 1,
        "new/deep/a": 1,
    }


@pytest.mark.parametrize(
    "text",
    [
        "see /home/max/a.txt",
        "see C:\\Users\\max\\a.txt",
        "see ~/max/a.txt",
        "see ('/data/max/a')",
        "see file:/home/max/a",
        "see ../stores/max/x",
        "see /data/scans/Mustermann max Felix/ct.nii.gz: must be whole",
        "see /data/scans/Muster max.nii.gz: must be whole",
        "see ssh://max:secret@gpu7.klinik.de/data/runs cannot be written",
        "see s3://bucket-of-max/runs: cannot be written",
        "see \\\\klinik-nas\\pat\\max\\ct.nii",
    ],
)
def test_paths_are_not_named(text):
    for name in ("max", "Muster", "Felix", "klinik", "secret", "bucket"):
        assert name not in without_paths(text)
    assert without_paths(text).startswith("see ")


@pytest.mark.parametrize(
    "text", ["$@output_dir + '/.cache'", "1/2 of 3/4", "val/dice/liver", "@train#a / 2", "a / b / c"]
)
def test_texts_without_paths_stay(text):
    assert without_paths(text) == text
