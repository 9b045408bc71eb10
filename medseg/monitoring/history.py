"""What was measured: every row in `metrics.jsonl`, every epoch in `training_history.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events

from medseg.atomic import write_json
from medseg.monitoring.gradients import GradientNorm
from medseg.monitoring.means import Means
from medseg.monitoring.parts import LossParts
from medseg.monitoring.rows import Rows
from medseg.monitoring.throughput import Pace
from medseg.monitoring.validation import validation_scores
from medseg.runs.metrics_log import finite
from medseg.runs.record import HISTORY

_SERIES = (
    "epoch", "loss", "dice_loss", "ce_loss", "lr", "grad_norm", "samples_per_second", "data_wait", "mean_dice"
)  # fmt: skip


class History:
    """Write down loss, learning rate, gradients, speed and Dice of a run.

    Not MONAI's `StatsHandler` or `MetricsSaver`: they print, or save one epoch's table; this is the record of
    the whole run that everything else (curves, trackers, reports) is made of. It belongs after the validation and
    before what saves checkpoints; its state is in `engine.state.kept`, and loss and mean scores of the epoch are in
    `engine.state.scores`.

    `metrics.jsonl` is only ever appended to; rows of this handler have `kind` `begin`, `batch`, `epoch`,
    `validation` or `image` (what `Previews` drew). Each batch and epoch is recorded once over the life of a run.
    `training_history.json` is written anew at each epoch, whole or not at all, and holds a list for each
    series; `dice` by structure name, null where a structure was absent from truth and prediction.

    Of a loss with `parts` (`medseg.losses`), and of MONAI's `DiceCELoss`, Dice and cross-entropy are recorded, too.
    Between the batches that are recorded nothing is read from a GPU. The gradient's norm is that of the latest step,
    before clipping; an epoch's is the mean over the recorded batches and its last.

    Args:
        folder: the run's folder; made if need be.
        validator: the evaluator whose metrics are recorded.
        log_every_n_batches: how often a batch is recorded.
        structures: names of the channels, for metrics that do not know them.
    """

    def __init__(
        self,
        folder: str | Path,
        validator: Any | None = None,
        log_every_n_batches: int = 10,
        structures: Sequence[str] = (),
    ) -> None:
        self.folder, self.validator, self.every = Path(folder), validator, max(1, log_every_n_batches)
        self.structures = tuple(structures)
        self.rows, self.pace, self.means = Rows(folder), Pace(), Means()
        self.norm, self.parts = GradientNorm(self._wants_norm), LossParts()
        self._epochs: list[dict[str, Any]] = []
        self._place: tuple[int, int] | None = None  # epoch and iteration that the sums are of
        self._begun = False
        self._lr: float | None = None  # of the latest step; a schedule may have gone on since

    def attach(self, engine: Any) -> None:
        """Follow the trainer."""
        if engine.state.rank > 0:
            return
        if getattr(engine.state, "kept", None) is None:
            engine.state.kept = {}
        engine.state.kept["history"] = self
        self.norm.attach(engine)
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.EPOCH_STARTED, self._epoch_started)
        engine.add_event_handler(Events.ITERATION_STARTED, self._step_starts)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.pace.asked)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self.pace.got)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._batch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)

    def state_dict(self) -> dict[str, Any]:
        """The sums of an epoch that is under way, and the pace of the latest."""
        return {
            "place": None if self._place is None else list(self._place),
            "means": self.means.state_dict(),
            "pace": self.pace.state_dict(),
            "gradient_norm": self.norm.read(),
            "lr": self._lr,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there, if the trainer goes on at the same place."""
        epoch, iteration = state["place"] or (-1, -1)
        self._place = (int(epoch), int(iteration))
        self.means.load_state_dict(state["means"])
        self.pace.load_state_dict(state["pace"])
        self.norm.load(state["gradient_norm"])
        self._lr = state.get("lr")

    def _started(self, engine: Any) -> None:
        self._begun = False
        self.parts.follow(getattr(engine, "loss_function", None))

    def _begin(self, engine: Any) -> None:
        """Take up what is there already; by now the trainer knows where it goes on."""
        state, self._begun = engine.state, True
        self.rows.take_up(state.iteration)
        path = self.folder / HISTORY
        if not self._epochs and state.epoch > 1 and path.is_file():
            self._epochs = json.loads(path.read_text(encoding="utf-8"))["epochs"]
        self._epochs = [one for one in self._epochs if one["epoch"] < state.epoch]
        self.rows.add(
            "begin",
            engine,
            resumed=state.iteration > 0,
            max_epochs=state.max_epochs,
            epoch_length=state.epoch_length,
            batch_size=getattr(engine.data_loader, "batch_size", None),
            accumulation_steps=getattr(engine, "accumulation_steps", 1),
            device=str(state.device),
        )

    def _epoch_started(self, engine: Any) -> None:
        location = (engine.state.epoch, engine.state.iteration)
        goes_on = self._place == location
        if not goes_on:
            self.means.clear()
        if not self._begun:
            self._begin(engine)
        self._pictures(engine)
        self._place = location
        self.pace.epoch_started(goes_on)

    def _step_starts(self, engine: Any) -> None:
        self._lr = _learning_rate(engine)

    def _batch(self, engine: Any) -> None:
        state = engine.state
        self.pace.stepped(_samples(state))
        loss = _loss(state.output)
        if loss is not None:
            self.means.add({"loss": loss, **{f"{name}_loss": value for name, value in self.parts.read().items()}})
        self._place = (state.epoch, state.iteration)
        logged = state.iteration % self.every == 0
        if not (logged or _last_of_epoch(state)):
            return
        norm = self.norm.read()
        if norm is not None:
            self.means.count("grad_norm", norm)
        if logged:
            speed, wait = self.pace.since_last()
            state.data_wait = wait
            values = {name: finite(value) for name, value in self.means.last().items()}
            self.rows.add(
                "batch",
                engine,
                **values,
                lr=self._lr,
                grad_norm=finite(norm),
                **self._speed(speed, wait, state),
            )

    def _epoch(self, engine: Any) -> None:
        state = engine.state
        self.pace.epoch_completed()
        means = {name: self.means.mean(name) for name in ("loss", "dice_loss", "ce_loss", "grad_norm")}
        known = {name: finite(value) for name, value in means.items() if name == "loss" or value is not None}
        row = {
            **known,
            "lr": self._lr,
            "train_seconds": round(self.pace.seconds, 3),
            **self._speed(*self.pace.of_epoch(), state),
        }
        self.rows.add("epoch", engine, **row)
        validated = self.validator is not None and self.validator.state.epoch == state.epoch
        scores = validation_scores(self.validator.state, self.structures) if self.validator and validated else {}
        if scores:
            self.rows.add("validation", engine, **scores)
        self._pictures(engine)
        self._epochs.append({"epoch": state.epoch, **row, **scores})
        state.scores = {name: value for name, value in {**row, **scores}.items() if _is_score(name, value)}
        write_json(self.folder / HISTORY, self._summary(engine))

    def _speed(self, speed: float | None, wait: float | None, state: Any) -> dict[str, float | None]:
        return {
            "samples_per_second": finite(speed, 3),
            "data_wait": finite(wait, 4),
            "seconds_left": finite(self.pace.left(state.iteration, state.epoch_length, state.max_epochs), 3),
        }

    def _pictures(self, engine: Any) -> None:
        """A row for each picture that was drawn since the last look."""
        state = getattr(self.validator, "state", None)
        drawn = getattr(state, "pictures", None) or []
        for picture in drawn:
            location = {} if picture["epoch"] else {"iteration": 0}  # the look before training
            self.rows.add("image", engine, **{**picture, "file": _relative(picture["file"], self.folder)}, **location)
        drawn.clear()

    def _wants_norm(self, engine: Any) -> bool:
        """Whether a batch will be recorded before the next step."""
        until_logged = -engine.state.iteration % self.every
        return until_logged < getattr(engine, "accumulation_steps", 1) or _last_of_epoch(engine.state)

    def _summary(self, engine: Any) -> dict[str, Any]:
        columns = {name: [epoch.get(name) for epoch in self._epochs] for name in _SERIES}
        validated = [epoch for epoch in self._epochs if "dice" in epoch]
        names = validated[-1]["dice"] if validated else {}
        by_name = {name: [epoch.get("dice", {}).get(name) for epoch in self._epochs] for name in names}
        last = validated[-1] if validated else {}
        return {
            **columns,
            "dice": by_name,
            "best_dice": last.get("best_dice"),
            "best_epoch": last.get("best_epoch"),
            "max_epochs": engine.state.max_epochs,
            "epochs": self._epochs,
        }


def _loss(output: Any) -> torch.Tensor | None:
    """The loss of a batch, where a trainer gives one; on the device."""
    first = output[0] if isinstance(output, list) and output else output
    loss = first.get("loss") if isinstance(first, Mapping) else None
    if isinstance(loss, float):  # taken apart, with the rest of a batch
        return torch.tensor(loss)
    return loss.detach().mean() if isinstance(loss, torch.Tensor) else None


def _samples(state: Any) -> int:
    if isinstance(state.output, list):
        return len(state.output)
    for held in (state.output, state.batch):
        if isinstance(held, Mapping) and hasattr(held.get("image"), "__len__"):
            return len(held["image"])
    return 0


def _last_of_epoch(state: Any) -> bool:
    return bool(state.epoch_length) and state.iteration % state.epoch_length == 0


def _is_score(name: str, value: Any) -> bool:
    """Whether a field of an epoch says how well it went, in one number."""
    return isinstance(value, float) and (name == "loss" or name.startswith("mean_"))


def _relative(path: str | Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _learning_rate(engine: Any) -> float | None:
    optimizer = getattr(engine, "optimizer", None)
    return float(optimizer.param_groups[0]["lr"]) if optimizer is not None else None
