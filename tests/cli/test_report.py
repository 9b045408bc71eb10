import csv
import json
import subprocess
import sys

import pytest


@pytest.fixture
def run(runs):
    """A run of two epochs as its rows tell it."""
    folder = runs / "unet2d" / "20261122-first"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"bundle": "unet2d", "state": "finished"}))
    rows = [{"kind": "epoch", "time": 100.0 + epoch, "epoch": epoch, "iteration": epoch, "loss": 1 / epoch, "lr": None}
            for epoch in (1, 2)]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_run_is_found_by_a_part_of_its_name_and_its_page_lies_in_its_folder(medseg, run):
    done = medseg("report", "first")
    assert done.code == 0
    assert str(run / "report.html") in done.out
    assert "20261122-first" in (run / "report.html").read_text(encoding="utf-8")
    assert "previews is missing" in done.err


def test_page_and_series_go_where_they_are_told_to(medseg, run, tmp_path, monkeypatch):
    monkeypatch.delenv("MEDSEG_RUNS")
    out = tmp_path / "out"
    assert medseg("report", "first", "--runs", run.parents[1], "-o", out / "x.html", "--csv", out / "csv").code == 0
    assert (out / "x.html").is_file()
    assert not (run / "report.html").exists()
    with (out / "csv" / "epochs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["loss"], row["lr"]) for row in rows] == [("1", "1.0", ""), ("2", "0.5", "")]


def test_a_folder_as_output_gets_the_page_in_it(medseg, run, tmp_path):
    assert medseg("report", run, "-o", tmp_path).code == 0
    assert (tmp_path / "report.html").is_file()


def test_a_foreign_folder_with_rows_alone_is_enough(medseg, run):
    (run / "run.json").unlink()
    done = medseg("report", run)
    assert done.code == 0
    assert "run.json is missing" in done.err


@pytest.mark.parametrize("name", ["frist", "nowhere"])
def test_a_run_that_is_not_there_is_one_clear_error(medseg, run, name):
    done = medseg("report", name)
    assert done.code == 1
    assert f"run '{name}'" in done.err
    assert "20261122-first" in done.err


def test_neither_torch_nor_monai_is_loaded(run):
    code = f"from medseg.cli import main; main(['report', {str(run)!r}])"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "medseg.report.run_page" in loaded
    assert not {"torch", "monai", "ignite", "nibabel"} & loaded
