import pytest

from medseg.monitoring.payload import payload, without_paths


def test_every_kind_of_row_says_where_it_belongs(lab):
    for row in lab.rows_of_a_run()[1:]:
        values = payload(row).values
        assert (values["epoch"], values["iteration"]) == (row["epoch"], row["iteration"])


def test_numbers_go_by_their_path_and_what_is_null_is_left_out():
    row = {"kind": "validation", "epoch": 2, "mean_dice": 0.5, "dice": {"liver": 0.4, "spleen": None}, "best_dice": 0.5}
    found = payload({**row, "best_epoch": 2, "f1": {"liver": 0.7}})
    assert found.values == {
        "epoch": 2,
        "val/mean_dice": 0.5,
        "val/dice/liver": 0.4,
        "val/best_dice": 0.5,
        "val/best_epoch": 2,
        "val/f1/liver": 0.7,
    }
    assert found.summary == {"best_dice": 0.5, "best_epoch": 2}
    system = payload({"kind": "system", "cpu": 0.5, "gpu": [{"load": 0.1}, {"load": 0.9}]}).values
    assert system == {"system/cpu": 0.5, "system/gpu/0/load": 0.1, "system/gpu/1/load": 0.9}


def test_pictures_histograms_and_alerts():
    image = payload({"kind": "image", "case": "s1", "file": "previews/a.png", "caption": "s1, slice 3"})
    assert image.images == [("val/images/s1", "previews/a.png", "s1, slice 3")]
    two = {"edges": [0, 1, 2], "counts": [3, 4]}
    both = payload({"kind": "histogram", "parameters": {"conv": two}, "gradients": {"conv": two}})
    assert both.histograms == {"parameters/conv": ([3, 4], [0, 1, 2]), "gradients/conv": ([3, 4], [0, 1, 2])}
    warning = payload({"kind": "warning", "level": "error", "title": "Disk", "text": "/tmp/a/b: must have room"})
    assert warning.alerts == [("error", "Disk", "(a file): must have room")]


@pytest.mark.parametrize(("state", "level"), [("failed", "error"), ("interrupted", "warning")])
def test_an_end_that_is_none_is_an_alert_without_its_reason(state, level):
    found = payload({"kind": "end", "state": state, "reason": "no such file: /home/max/x"})
    assert [alert[0] for alert in found.alerts] == [level]
    assert "max" not in str(found)
    assert payload({"kind": "end", "state": "finished"}).alerts == []


def test_a_scan_that_was_segmented():
    row = {"kind": "case", "case": "s1", "seconds": 2.0, "volume_ml": {"liver": 1500.0}, "file": "../s1.png"}
    found = payload(row)
    assert found.values == {"case/seconds": 2.0, "case/volume_ml/liver": 1500.0, "case/id": "s1"}
    assert found.images == [("case/images/s1", "../s1.png", "s1")]


def test_a_kind_that_nobody_told_of_gives_its_numbers():
    assert payload({"kind": "new", "epoch": 1, "deep": {"a": True}, "b": "text"}).values == {
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
def test_what_is_no_path_stays(text):
    assert without_paths(text) == text
