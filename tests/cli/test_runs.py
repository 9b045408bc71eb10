"""`medseg runs list|show|compare`: which runs, as tables and as JSON."""

import json
import subprocess
import sys

import pytest

from medseg.atomic import write_json
from medseg.runs.metrics_log import append_row
from medseg.runs.record import this_process


@pytest.fixture
def make(runs):
    def one(name, rows=(), config=None, **record):
        folder = runs / "unet2d" / name
        folder.mkdir(parents=True)
        write_json(folder / "run.json", {"bundle": "unet2d", **record})
        for row in rows:
            append_row(folder, row)
        if config is not None:
            write_json(folder / "configs" / "train.json", config)
        return folder

    return one


def names(done):
    return [one["name"] for one in json.loads(done.out)]


def test_the_list_is_the_latest_twenty_and_what_runs(medseg, make):
    make("00-running", state="running", **this_process())
    for number in range(1, 25):
        make(f"{number:02}-done", state="finished", epoch=3, max_epochs=3, best_dice=0.5, best_epoch=2)
    done = medseg("runs")
    assert done.code == 0
    assert "24-done" in done.out
    assert "00-running" in done.out
    assert "04-done" not in done.out
    assert "4 older: medseg runs --all" in done.out
    assert len(names(medseg("runs", "--json"))) == 21
    assert names(medseg("runs", "list", "--all", "--json")) == sorted(names(medseg("runs", "--all", "--json")))[::-1]


def test_the_option_runs_works_before_and_after_the_command(medseg, make, runs, tmp_path, monkeypatch):
    make("one", state="finished")
    monkeypatch.setenv("MEDSEG_RUNS", str(tmp_path / "nothing"))
    assert "No runs in" in medseg("runs").out
    for arguments in (
        ["--runs", runs, "list", "--json"],
        ["list", "--runs", runs, "--json"],
        ["--runs", runs, "--json"],
    ):
        assert names(medseg("runs", *arguments)) == ["one"]


def test_show_takes_part_of_a_name_or_the_running_run(medseg, make, runs):
    make("20260101-quick", state="running", **this_process())
    make("20260102-full", state="finished")
    assert json.loads(medseg("runs", "show", "--json").out)["name"] == "20260101-quick"
    assert "20260102-full  finished" in medseg("runs", "show", "full").out
    done = medseg("runs", "show", "fulll")
    assert done.code == 1
    assert done.err == (
        f"Error: run 'fulll': no run under {runs} has this name. The latest are: 20260101-quick, 20260102-full.\n"
    )
    assert "2 runs have this in their name" in medseg("runs", "show", "2026").err


def test_compare_needs_two_runs_and_prints_json(medseg, make):
    make("a", config={"lr": 0.1})
    make("b", config={"lr": 0.2})
    assert medseg("runs", "compare", "a").code == 2
    found = json.loads(medseg("runs", "compare", "a", "b", "--json").out)
    assert found["settings"] == {"lr": [0.1, 0.2]}
    assert [one["name"] for one in found["runs"]] == ["a", "b"]


def test_a_listing_and_help_import_neither_torch_nor_numpy(make):
    make("a", state="finished")
    for arguments in (["runs"], ["runs", "show"], ["runs", "watch", "--help"]):
        code = f"from medseg.cli import main; main({arguments!r})"
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True
        )
        modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "medseg.cli.runs_control" in modules
        assert not {"torch", "numpy", "monai", "ignite", "pandas"} & modules
