"""What was measured: every row in `metrics.jsonl`, every epoch in `training_history.json`."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from ignite.engine import Events

from medseg.atomic import write_json
from medseg.records import EPOCHS, append_row


class History:
    """Write down loss, learning rate, speed and Dice of a run.

    Not MONAI's `StatsHandler` or `MetricsSaver`: they print, or save one epoch's table; this is the record of
    the whole run that everything else (curves, trackers, reports) is made of. It belongs after the validation.

    `metrics.jsonl` is only ever appended to; its rows have `kind` `batch`, `epoch` or `validation`.
    `training_history.json` is written anew at each epoch, whole or not at all, and holds a list for each
    series; `dice` by structure name, null where a structure was absent from truth and prediction.

    Args:
        folder: the run's folder.
        validator: the evaluator whose metrics are recorded.
        log_every_n_batches: how often a batch is recorded.
    """

    def __init__(self, folder: str | Path, validator: Any | None = None, log_every_n_batches: int = 10) -> None:
        self.folder, self.validator, self.every = Path(folder), validator, max(1, log_every_n_batches)
        self._epochs: list[dict[str, Any]] = []
        self._losses: list[float] = []
        self._samples, self._started, self._last = 0, 0.0, 0.0

    def attach(self, engine: Any) -> None:
        """Follow the trainer."""
        if engine.state.rank > 0:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self._epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._batch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)

    def _take_up(self, epoch: int) -> None:
        """Take up the epochs before this one, where the trainer goes on from them."""
        path = self.folder / EPOCHS
        if not self._epochs and epoch > 1 and path.is_file():
            earlier = json.loads(path.read_text(encoding="utf-8"))["epochs"]
            self._epochs = [one for one in earlier if one["epoch"] < epoch]

    def _epoch_started(self, engine: Any) -> None:
        self._take_up(engine.state.epoch)
        self._losses, self._samples = [], 0
        self._started = self._last = time.perf_counter()

    def _batch(self, engine: Any) -> None:
        output: Any = engine.state.output
        loss = float((output[0] if isinstance(output, list) else output)["loss"].detach())
        self._losses.append(loss)
        self._samples += len(output) if isinstance(output, list) else len(output["image"])
        self._last = time.perf_counter()
        if engine.state.iteration % self.every == 0:
            self._append("batch", engine, loss=_finite(loss), lr=_learning_rate(engine))

    def _epoch(self, engine: Any) -> None:
        seconds = self._last - self._started
        row: dict[str, Any] = {
            "loss": _finite(sum(self._losses) / len(self._losses)) if self._losses else None,
            "lr": _learning_rate(engine),
            "samples_per_second": round(self._samples / seconds, 3) if seconds > 0 else None,
            "train_seconds": round(seconds, 3),
        }
        self._append("epoch", engine, **row)
        dice = self._validation(engine)
        if dice:
            self._append("validation", engine, **dice)
        self._epochs.append({"epoch": engine.state.epoch, **row, **dice})
        write_json(self.folder / EPOCHS, self._summary(engine))

    def _validation(self, engine: Any) -> dict[str, Any]:
        """Mean Dice, Dice by structure and best so far, if this epoch was validated."""
        state = self.validator.state if self.validator is not None else None
        if state is None or not state.metrics or state.epoch != engine.state.epoch:
            return {}
        name = state.key_metric_name
        details = state.metric_details.get(name) or {}
        return {
            "mean_dice": _finite(state.metrics[name]),
            "dice": details.get("by_structure", {}) if isinstance(details, dict) else {},
            "best_dice": _finite(state.best_metric),
            "best_epoch": int(state.best_metric_epoch),
        }

    def _summary(self, engine: Any) -> dict[str, Any]:
        series = ("epoch", "loss", "lr", "samples_per_second", "mean_dice")
        columns = {name: [epoch.get(name) for epoch in self._epochs] for name in series}
        validated = [epoch for epoch in self._epochs if "dice" in epoch]
        names = validated[-1]["dice"] if validated else {}
        by_name = {name: [epoch.get("dice", {}).get(name) for epoch in self._epochs] for name in names}
        last = self._epochs[-1]
        return {
            **columns,
            "dice": by_name,
            "best_dice": last.get("best_dice"),
            "best_epoch": last.get("best_epoch"),
            "max_epochs": engine.state.max_epochs,
            "epochs": self._epochs,
        }

    def _append(self, kind: str, engine: Any, **fields: Any) -> None:
        state = engine.state
        row = {
            "kind": kind,
            "time": round(time.time(), 3),
            "epoch": state.epoch,
            "iteration": state.iteration,
            **fields,
        }
        append_row(self.folder, row)


def _finite(value: float) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _learning_rate(engine: Any) -> float | None:
    optimizer = getattr(engine, "optimizer", None)
    return float(optimizer.param_groups[0]["lr"]) if optimizer is not None else None
