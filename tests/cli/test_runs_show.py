"""What is drawn of runs: everything a person asks for, from real rows."""

import json

import pytest

from medseg.atomic import write_json
from medseg.cli.runs_show import show_comparison, show_run
from medseg.runs.compare import compare
from medseg.runs.metrics_log import append_row
from medseg.runs.record import this_process
from medseg.runs.run import Run


@pytest.fixture
def run(tmp_path, repository):
    folder = tmp_path / "unet2d" / "20260101-demo"
    recipe = json.loads((repository / "bundles" / "unet2d" / "configs" / "train.json").read_text())
    write_json(folder / "configs" / "train.json", {**recipe, "lr": 0.125})
    cases = {"train": ["a", "b"], "val": ["c"], "test": []}
    about = {"bundle": "unet2d", "dataset": "/data/set", "cases": cases, "max_epochs": 4}
    write_json(folder / "run.json", {**about, "state": "running", **this_process()})
    dice = {f"structure_{number:02}": number / 20 for number in range(20)}
    for epoch in (1, 2):
        loss = {"loss": 2.0 / epoch, "samples_per_second": 12.5, "train_seconds": 200.0, "data_wait": 0.25}
        append_row(folder, {"kind": "epoch", "time": 0, "epoch": epoch, "iteration": 10 * epoch, **loss})
        scores = {
            "mean_dice": 0.25 * epoch,
            "best_dice": 0.25 * epoch,
            "best_epoch": epoch,
            "dice": {**dice, "gone": None},
        }
        append_row(folder, {"kind": "validation", "epoch": epoch, "iteration": 10 * epoch, **scores})
    gpu = {"load": 0.5, "memory_used": 2**33, "memory_total": 2**34}
    append_row(folder, {"kind": "system", "gpu": [gpu], "cpu": 0.25, "ram_free": 2**32, "disk_free": 2**30})
    append_row(
        folder, {"kind": "warning", "level": "warning", "epoch": 2, "title": "Slow data", "text": "more workers"}
    )
    write_json(folder / "monitor" / "state.json", {"backend": "trackio", "url": "http://127.0.0.1:7860/?project=x"})
    write_json(folder / "watch.json", {"restarts": 2, "ended": False})
    (folder / "train.log").touch()
    return folder


def test_show_prints_progress_scores_warnings_and_files(run, capsys):
    show_run(Run(run))
    printable = capsys.readouterr().out
    lines = {line.split()[0]: line for line in printable.splitlines() if line.startswith("  ") and line[2:3].strip()}
    assert printable.startswith("20260101-demo  running\n")
    assert "2/4, iteration 20" in lines["epoch"]
    assert "/data/set (2 train, 1 val)" in lines["data"]
    assert "12.5 samples/s, 3 min an epoch, 25% of it waiting for data" in lines["speed"]
    assert "GPU 0 50%, 8.0 of 16.0 GB, CPU 25%, RAM free 4.0 GB, disk free 1.0 GB" in lines["machine"]
    assert "http://127.0.0.1:7860/?project=x" in lines["page"]
    assert "2 restarts" in lines["watched"]
    assert "█▁  2.000 to 1.000" in lines["loss"]
    assert "▁█  0.250 to 0.500" in lines["Dice"]
    assert "Dice by structure, epoch 2, worst first" in printable
    assert "structure_04" in printable
    assert "... 10 more" in printable
    assert "structure_05" not in printable
    assert "structure_19" in printable
    assert "gone" not in printable
    assert "Warning (epoch 2): Slow data: more workers" in printable
    assert "Settings unlike the recipe" in printable
    assert "0.125" in printable
    assert "weight_decay" not in printable
    assert f"Folder: {run}" in printable
    assert "train.log, metrics.jsonl" in printable


def test_show_works_for_a_run_with_a_record_only(tmp_path, capsys):
    write_json(tmp_path / "run" / "run.json", {"state": "failed", "error": "DataError: [0] is gone"})
    show_run(Run(tmp_path / "run"))
    printable = capsys.readouterr().out
    assert "run  failed" in printable
    assert "DataError: [0] is gone" in printable
    assert "loss" not in printable


def test_the_batches_of_the_first_epoch_are_a_curve_too(tmp_path, capsys):
    write_json(tmp_path / "run" / "run.json", {"state": "interrupted"})
    for number in (3, 2, 1):
        append_row(tmp_path / "run", {"kind": "batch", "iteration": 4 - number, "loss": float(number)})
    show_run(Run(tmp_path / "run"))
    assert "3.000 to 1.000" in capsys.readouterr().out


def test_runs_side_by_side(run, tmp_path, capsys):
    other = tmp_path / "unet2d" / "20260102-other"
    write_json(other / "run.json", {"bundle": "unet2d", "state": "finished"})
    write_json(other / "configs" / "train.json", json.loads((run / "configs" / "train.json").read_text()) | {"lr": 0.5})
    show_comparison(compare([run, other]))
    printable = capsys.readouterr().out
    assert "1: 20260101-demo (unet2d)" in printable
    assert ["lr", "0.125", "0.5"] in [line.split() for line in printable.splitlines()]
    assert ["structure_19", "0.950", "-"] in [line.split() for line in printable.splitlines()]
    show_comparison(compare([run, run]))
    assert "The settings are the same." in capsys.readouterr().out
