"""Runs made by hand, and a small program in place of a training."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medseg.atomic import write_json
from medseg.runs.metrics_log import append_row

TRAINER = Path(__file__).with_name("trainer.py")


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., list[str]]:
    """`trainer(batches, "--die-at", 3)`: the command that trains the run `tmp_path/runs/unet2d/run`."""
    folder = tmp_path / "runs" / "unet2d" / "run"

    def command(batches: int, *options: object) -> list[str]:
        return [sys.executable, str(TRAINER), str(folder), str(batches), *map(str, options)]

    return command


@pytest.fixture
def training(trainer: Callable[..., list[str]], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the trainer and wait until its run is under way."""
    started: list[subprocess.Popen[bytes]] = []

    def start(batches: int, *options: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(trainer(batches, *options), stdout=subprocess.DEVNULL)
        started.append(process)
        wait_until(lambda: (tmp_path / "runs" / "unet2d" / "run" / "metrics.jsonl").is_file())
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """`make_run(name, rows, config, **record)`: the folder of a run of unet2d."""

    def make(name: str = "run", rows: object = (), config: object = None, **record: object) -> Path:
        folder = tmp_path / "runs" / "unet2d" / name
        folder.mkdir(parents=True)
        write_json(folder / "run.json", {"bundle": "unet2d", **record})
        for row in rows:
            append_row(folder, row)
        if config is not None:
            (folder / "configs").mkdir()
            (folder / "configs" / "train.json").write_text(json.dumps(config))
        return folder

    return make


def wait_until(what: Callable[[], object], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until:
            pytest.fail(f"waited {seconds} s in vain")
        time.sleep(0.02)


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., None]:
    return wait_until
