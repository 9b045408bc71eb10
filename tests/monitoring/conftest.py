"""Runs without training: rows as a trainer writes them, a trainer of Ignite alone, and what a tracker holds."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from medseg.runs.metrics_log import append_row

TRAINER = """
import json, logging, sys, time
from pathlib import Path
from types import SimpleNamespace
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
from ignite.engine import Engine
from medseg.monitoring.monitor import Monitor
from medseg.runs.metrics_log import append_row, read_rows

folder, settings, batches, pause = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
folder.mkdir(parents=True, exist_ok=True)
done = sum(1 for _ in read_rows(folder))
began = time.perf_counter()

def step(engine, batch):
    number = done + engine.state.iteration
    if engine.state.iteration == 1:
        print("first step after", time.perf_counter() - began, flush=True)
    time.sleep(pause)
    append_row(folder, {"kind": "batch", "time": time.time(), "epoch": 1, "iteration": number, "loss": 1 / number})

engine = Engine(step)
Monitor(folder, settings).attach(engine)
engine.run(range(batches), max_epochs=1)
print("trained", flush=True)
"""


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No key, no home and no tracker of whoever runs the tests."""
    home = tmp_path / "home"
    home.mkdir()
    for name in list(os.environ):
        if name.startswith(("WANDB_", "TRACKIO_", "HF_")):
            monkeypatch.delenv(name)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there


def rows_of_a_run():
    """One row at least of every kind, 2 epochs."""
    rows = [{"kind": "begin", "resumed": False, "max_epochs": 2, "epoch_length": 4, "batch_size": 4, "device": "cpu"}]
    for epoch in (1, 2):
        for iteration in range(4 * epoch - 3, 4 * epoch + 1):
            batch = {"loss": 1 / iteration, "dice_loss": 0.5, "ce_loss": None, "lr": 0.01, "grad_norm": 2.0}
            batch |= {"samples_per_second": 8.0, "data_wait": 0.1, "seconds_left": 60}
            rows.append({"kind": "batch", "epoch": epoch, "iteration": iteration, **batch})
        at = {"epoch": epoch, "iteration": 4 * epoch}
        rows.append({"kind": "epoch", **at, "loss": 1 / epoch, "lr": 0.01, "train_seconds": 3.5, "data_wait": 0.2})
        dice = {"liver": 0.4, "spleen": None}
        scores = {"mean_dice": epoch / 4, "dice": dice, "best_dice": epoch / 4, "best_epoch": epoch, "seconds": 1.0}
        rows.append({"kind": "validation", **at, **scores, "f1": {"liver": 0.6}, "mean_f1": 0.6})
        file = f"previews/epoch_{epoch:04d}_s0001.png"
        rows.append({"kind": "image", **at, "case": "s0001", "file": file, "caption": f"s0001, epoch {epoch}"})
        rows.append({"kind": "histogram", **at, "parameters": {"conv": {"edges": [0, 1, 2], "counts": [3, 4]}}})
        gpu = [{"load": 0.9, "memory_used": 5, "memory_total": 10}]
        rows.append({"kind": "system", **at, "gpu": gpu, "cpu": 0.5, "ram_used": 7, "disk_free": 9})
    text = "/home/max/data: nearly full"
    rows.append({"kind": "warning", "epoch": 2, "iteration": 8, "level": "warning", "title": "Disk", "text": text})
    rows.append({"kind": "end", "epoch": 2, "iteration": 8, "state": "finished", "reason": None})
    return [{"time": 1e9 + number, **row} for number, row in enumerate(rows)]


def make_run(folder, rows=(), state="finished", **record):
    """A run's folder with these rows, as if its trainer had ended; its config names places that nobody is to know."""
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    config = {"lr": 0.01, "batch_size": 4, "dataset_dir": "/home/max/data", "run_name": "try", "batch": "$@batch_size"}
    config |= {"reader": {"_target_": "Reader", "cache": str(folder / "cache")}, "load": "$open('/home/max/a.txt')"}
    (folder / "configs" / "train.json").write_text(json.dumps(config))
    about = {"bundle": folder.parent.name, "name": "try", "started": "2026-11-22T10:00:00", "data": "f1n9"}
    about |= {"git": {"commit": "abc", "dirty": True}, "cases": {"train": ["s1", "s2"], "val": ["s3"]}}
    about |= {"command": ["/usr/bin/medseg"], "dataset": "/home/max/data", "host": "the-host"}
    (folder / "run.json").write_text(json.dumps({**about, "state": state, **record}))
    (folder / "previews").mkdir(exist_ok=True)
    for epoch in (1, 2):
        Image.new("RGB", (24, 8), (epoch, 0, 0)).save(folder / "previews" / f"epoch_{epoch:04d}_s0001.png")
    for row in rows:
        append_row(folder, row)
    return folder


@pytest.fixture
def finished(tmp_path):
    return make_run(tmp_path / "runs" / "unet2d" / "20261122-try", rows_of_a_run())


def feed(folder, *options, check=True):
    """Run the feed to its end."""
    command = [sys.executable, "-m", "medseg.monitoring.uploader", str(folder), *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


def train(folder, settings, batches=20, pause=0.05, **popen):
    """Start the trainer of Ignite alone."""
    command = [sys.executable, "-c", TRAINER, str(folder), json.dumps(settings), str(batches), str(pause)]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, **{**streams, **popen})


def wait_for(condition, seconds=30.0):
    """Wait until something holds; what it gave."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
    return found


def in_trackio(folder):
    """What trackio's database beside a run holds: (step, values) in order, run ids, alerts."""
    files = list((folder.parent.parent / ".trackio").glob("*.db"))
    assert len(files) == 1
    database = sqlite3.connect(files[0])
    try:
        rows = database.execute("SELECT step, metrics, run_id FROM metrics ORDER BY id").fetchall()
        alerts = database.execute("SELECT step, title, text, level FROM alerts").fetchall()
    finally:
        database.close()
    return [(step, json.loads(values)) for step, values, _ in rows], {row[2] for row in rows}, alerts


def offline_runs(folder):
    return sorted((folder / "monitor" / "wandb").glob("offline-run-*"))


def in_wandb(folder):
    """Every record of the one offline run in a run's folder."""
    (location,) = offline_runs(folder)
    wandb = Path(sys.executable).with_name("wandb")
    command = [str(wandb) if wandb.exists() else "wandb", "leet", "inspect", "--json", str(location)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def history(records):
    """(step, values) of W&B's rows."""
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [(item["_step"], item) for item in items]


@pytest.fixture
def lab():
    """The functions above, for the tests."""
    names = (make_run, rows_of_a_run, feed, train, wait_for, in_trackio, in_wandb, offline_runs, history)
    return SimpleNamespace(**{function.__name__: function for function in names})
