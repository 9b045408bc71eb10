"""Folders of runs that were never run: rows of every kind, with distinct values."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medseg.runs import Run

START = 1_795_358_890.0
GB = 10**9
MakeRun = Callable[..., Path]
VOID = {"meta", "img", "input", "wbr"}  # tags that are never closed


class Page(HTMLParser):
    """A page of the report: well-formed, fetching nothing, running nothing but its own script."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open
        assert html.startswith("<!doctype html>")
        assert self.count("script") == 1
        assert not [name for _, attributes in self.tags for name in attributes if name.startswith("on")]
        sources = [value for _, attributes in self.tags for key, value in attributes.items() if key in ("src", "href")]
        assert all(source.startswith(("#", "data:image/jpeg;base64,")) for source in sources)
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert {source[1:] for source in sources if source.startswith("#")} <= set(ids)
        policies = [attributes.get("content", "") for tag, attributes in self.tags if tag == "meta"]
        assert any("default-src 'none'" in policy for policy in policies)
        assert not any(word in html for word in ("url(", "@import", "fetch(", "XMLHttpRequest"))
        self.images = [source for source in sources if source.startswith("data:")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style"}:
            self.text.append(data)

    def count(self, tag: str, **attributes: str) -> int:
        return sum(name == tag and attributes.items() <= present.items() for name, present in self.tags)

    def content(self) -> str:
        return " ".join(self.text)


@pytest.fixture
def parse() -> Callable[[str], Page]:
    """Parse a page, after checking what holds for every page."""
    return Page


def rows_of(
    epochs: int, batches: int, structures: list[str], resumed: int | None = None, lost: tuple[int, ...] = ()
) -> list[dict[str, Any]]:
    """Return the rows of a run: `batches` an epoch, resumed before epoch `resumed`, no loss at iterations `lost`."""
    rng, time, rows = random.Random(0), START, []
    begin = {"max_epochs": epochs, "epoch_length": batches, "batch_size": 4, "device": "cuda:0"}
    best, best_epoch = 0.0, 0

    def add(kind: str, epoch: int, iteration: int, **fields: Any) -> None:
        rows.append({"kind": kind, "time": round(time, 3), "epoch": epoch, "iteration": iteration, **fields})

    add("begin", 0, 0, resumed=False, accumulation_steps=1, **begin)
    for epoch in range(1, epochs + 1):
        if epoch == resumed:
            time += 7200
            add("begin", epoch - 1, (epoch - 1) * batches, resumed=True, accumulation_steps=1, **begin)
        at = epoch / epochs
        lr = 1e-3 * (1 - at) ** 0.9
        for batch in range(1, batches + 1):
            time += 2
            loss = 0.4 + 3 * math.exp(-5 * at) + rng.uniform(-0.1, 0.1)
            number = (epoch - 1) * batches + batch
            speed = {"samples_per_second": 50 + rng.uniform(-5, 5), "data_wait": rng.uniform(0.02, 0.2)}
            measured = {"loss": loss, "dice_loss": 0.6 * loss, "ce_loss": 0.4 * loss, "grad_norm": 1 + 9 * rng.random()}
            fields = dict.fromkeys(measured) if number in lost else measured
            add("batch", epoch, number, **fields, lr=lr, **speed, seconds_left=(epochs - epoch) * 2.0 * batches)
        add("epoch", epoch, epoch * batches, loss=0.4 + 3 * math.exp(-5 * at), dice_loss=0.3 + math.exp(-5 * at),
            ce_loss=0.1 + 2 * math.exp(-5 * at), lr=lr, grad_norm=5 * math.exp(-at), samples_per_second=50.0,
            train_seconds=2.0 * batches, data_wait=0.1, seconds_left=(epochs - epoch) * 2.0 * batches)  # fmt: skip
        dice = {
            name: None if index % 40 == 39 else round(max(0.0, (0.2 + 0.79 * (index + 1) / len(structures)) * at), 6)
            for index, name in enumerate(structures)
        }
        present = [value for value in dice.values() if value is not None]
        mean = sum(present) / len(present) - (0.3 if epoch == epochs and epochs > 2 else 0)
        best, best_epoch = max((best, best_epoch), (mean, epoch))
        add("validation", epoch, epoch * batches, mean_dice=mean, dice=dice, best_dice=best, best_epoch=best_epoch,
            seconds=11.5, f1=dice, mean_f1=mean / 2)  # fmt: skip
        add("image", epoch, epoch * batches, case="c1", file=f"previews/epoch_{epoch:04d}_c1.png", caption="c1")
        gpu = [{"load": rng.uniform(0.6, 1), "memory_used": 18.5 * GB, "memory_total": 24 * GB} for _ in range(2)]
        add("system", epoch, epoch * batches, gpu=gpu, cpu=rng.uniform(0.2, 0.5), ram_used=12 * GB, ram_free=20 * GB,
            ram_process=5 * GB, disk_free=max(1.0, 80 - 70 * at) * GB, shm_free=8 * GB)  # fmt: skip
    edges = {"edges": [-1.0, 0.0, 0.5], "counts": [3, 4]}
    add("histogram", epochs, epochs * batches, parameters={"conv.weight": edges}, gradients={"conv.weight": edges})
    add("warning", epochs, epochs * batches, level="warning", title="Disk nearly full", text="1 GB left. Free space.")
    add("warning", 1, 1, level="error", title="Loss is NaN", text="Batch 1 of cases c1, c2.")
    add("end", epochs, epochs * batches, state="finished", reason="max_epochs")
    return rows


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Make the folder of a run: `make_run(epochs=3, batches=4, structures=["liver"], previews=0, **record)`."""

    def make(
        epochs: int = 3, batches: int = 4, structures: list[str] | None = None, name: str = "20261122-demo",
        previews: int = 0, config: dict[str, Any] | None = None, resumed: int | None = None,
        lost: tuple[int, ...] = (), **record: Any,
    ) -> Path:  # fmt: skip
        folder = tmp_path / "runs" / "unet2d" / name
        (folder / "configs").mkdir(parents=True)
        names = structures or ["liver", "spleen", "aorta"]
        rows = rows_of(epochs, batches, names, resumed, lost)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (folder / "configs" / "train.json").write_text(json.dumps(config or {"lr": 0.001, "max_epochs": epochs}))
        labels = {str(index): name for index, name in enumerate(["background", *names])}
        (folder / "label_map.json").write_text(json.dumps(labels), encoding="utf-8")
        (folder / "training_history.json").write_text(json.dumps({"epochs": []}))
        about = {
            "bundle": "unet2d", "name": "demo", "state": "finished", "started": "2026-11-22T14:48:10+0000",
            "cases": {"train": ["c3", "c4"], "val": ["c1"], "test": []}, "data": "sha256-0123456789abcdef",
            "git": {"commit": "0123456789abcdef", "dirty": True}, "versions": {"torch": "2.13.0"}, "error": None,
        }  # fmt: skip
        (folder / "run.json").write_text(json.dumps({**about, **record}), encoding="utf-8")
        (folder / "previews").mkdir()
        noise = np.random.default_rng(0).integers(0, 255, (370, 900, 3), dtype=np.uint8)
        for epoch in range(1, previews + 1):
            Image.fromarray(noise[:, : 900 - epoch % 7]).save(folder / "previews" / f"epoch_{epoch:04d}_c1.png")
        return folder

    return make


@pytest.fixture
def fake_run() -> Callable[..., Run]:
    """Make a run without a folder: `fake_run(rows={"epoch": [(0, {"epoch": 1})]}, record={}, config={}, ...)`."""

    def make(folder: str | Path = "nowhere", **parts: Any) -> Run:
        run = object.__new__(Run)
        run.__dict__.update(folder=Path(folder), now=START, _damage={}, tail=[])
        run.__dict__.update({"record": {}, "rows": {}, "config": {}, "structures": (), "previews": {}, **parts})
        return run

    return make
