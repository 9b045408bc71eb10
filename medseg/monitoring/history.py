"""What was measured: every row in the metrics log, every epoch in `training_history.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events

from medseg.atomic import relative_path, write_json
from medseg.monitoring.gradients import GradientNorm
from medseg.monitoring.row_writer import RowWriter
from medseg.monitoring.running_mean import LossParts, RunningMean
from medseg.monitoring.scores import validation_scores
from medseg.monitoring.throughput import Throughput
from medseg.runs.metrics_log import finite
from medseg.runs.record import HISTORY

_MEANS = ("loss", "dice_loss", "ce_loss", "grad_norm")
_SERIES = ("epoch", *_MEANS[:3], "lr", "grad_norm", "samples_per_second", "data_wait", "mean_dice")


class History:
    """Record loss, learning rate, gradients, speed and Dice of a run.

    Not MONAI's `StatsHandler` or `MetricsSaver`: they print, or save one epoch's table; this is the record of the
    whole run from which curves, trackers and reports are made. Attach it after the validation and before what saves
    checkpoints; its state is in `engine.state.stateful`, loss and mean scores of the epoch in `engine.state.scores`.

    The metrics log is only ever appended to; rows of this handler have `kind` `begin`, `batch`, `epoch`, `validation`
    or `image` (drawn by `Previews`). Each batch and epoch is recorded once over the life of a run. The file
    `training_history.json` is written again at each epoch, whole or not at all, with a list for each series; `dice` is
    by structure, null where a structure was absent from truth and prediction.

    Of a loss with `parts` (`medseg.losses`), and of MONAI's `DiceCELoss`, Dice and cross-entropy are recorded, too.
    Between the batches that are recorded nothing is read from a GPU. The gradient's norm is that of the latest step,
    before clipping; an epoch's is the mean over the recorded batches and its last.

    Args:
        folder: the run's folder; made if need be.
        validator: the evaluator whose metrics are recorded.
        log_every_n_batches: how often a batch is recorded.
        structures: names of the channels, for metrics that do not know them.
        optimizer: for learning rate and gradients. Default: the trainer's `optimizer`, which MONAI's have.

    Example:
        >>> trainer = Engine(lambda engine, batch: {"loss": step(batch)})  # doctest: +SKIP
        >>> History("runs/mine", optimizer=optimizer).attach(trainer)  # doctest: +SKIP
    """

    affects_result = False  # see medseg.bundle.run_identity

    def __init__(
        self,
        folder: str | Path,
        validator: Any | None = None,
        log_every_n_batches: int = 10,
        structures: Sequence[str] = (),
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.validator = validator
        self.every = max(1, log_every_n_batches)
        self.structures = tuple(structures)
        self.optimizer = optimizer
        self.rows = RowWriter(folder)
        self.throughput = Throughput()
        self.means = RunningMean()
        self.norm = GradientNorm(self._norm_is_due, optimizer)
        self.parts = LossParts()
        self._epochs: list[dict[str, Any]] = []
        self._position: tuple[int, int] | None = None  # epoch and iteration of the sums
        self._started = False
        self._validated = False  # since the last epoch; a plain Ignite evaluator counts epochs of its own
        self._lr: float | None = None  # of the latest step; a schedule may have stepped since

    def attach(self, engine: Any) -> None:
        """Follow the trainer."""
        if getattr(engine.state, "rank", 0) > 0:
            return
        if getattr(engine.state, "stateful", None) is None:
            engine.state.stateful = {}
        engine.state.stateful["history"] = self
        self.norm.attach(engine)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._epoch_started)
        engine.add_event_handler(Events.ITERATION_STARTED, self._step_started)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.throughput.batch_requested)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self.throughput.batch_received)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._batch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)
        if self.validator is not None:
            self.validator.add_event_handler(Events.COMPLETED, self._note_validation)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the epoch that is under way, and the durations of the latest."""
        return {
            "position": None if self._position is None else list(self._position),
            "means": self.means.state_dict(),
            "throughput": self.throughput.state_dict(),
            "gradient_norm": self.norm.read(),
            "lr": self._lr,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from there, if the trainer resumes at the same position."""
        epoch, iteration = state["position"] or (-1, -1)
        self._position = (int(epoch), int(iteration))
        self.means.load_state_dict(state["means"])
        self.throughput.load_state_dict(state["throughput"])
        self.norm.load(state["gradient_norm"])
        self._lr = state.get("lr")

    def _start(self, engine: Any) -> None:
        self._started = False
        self.parts.follow(getattr(engine, "loss_function", None))

    def _begin(self, engine: Any) -> None:
        """Take up what was recorded; by now the trainer knows where it resumes."""
        state = engine.state
        self._started = True
        self.rows.resume(state.iteration)
        path = self.folder / HISTORY
        if not self._epochs and state.epoch > 1 and path.is_file():
            self._epochs = json.loads(path.read_text(encoding="utf-8"))["epochs"]
        self._epochs = [epoch for epoch in self._epochs if epoch["epoch"] < state.epoch]
        loader = getattr(engine, "data_loader", None) or state.dataloader
        self.rows.add(
            "begin",
            engine,
            resumed=state.iteration > 0,
            max_epochs=state.max_epochs,
            epoch_length=state.epoch_length,
            batch_size=getattr(loader, "batch_size", None),
            accumulation_steps=getattr(engine, "accumulation_steps", 1),
            device=str(getattr(state, "device", "cpu")),
        )

    def _epoch_started(self, engine: Any) -> None:
        position = (engine.state.epoch, engine.state.iteration)
        resumed = self._position == position
        if not resumed:
            self.means.clear()
        if not self._started:
            self._begin(engine)
        self._record_previews(engine)
        self._position = position
        self.throughput.epoch_started(resumed)

    def _step_started(self, engine: Any) -> None:
        optimizer = self.optimizer or getattr(engine, "optimizer", None)
        self._lr = float(optimizer.param_groups[0]["lr"]) if optimizer is not None else None

    def _batch(self, engine: Any) -> None:
        state = engine.state
        self.throughput.step_completed(_batch_size(state))
        loss = _loss(state.output)
        if loss is not None:
            self.means.add({"loss": loss, **{f"{name}_loss": value for name, value in self.parts.read().items()}})
        self._position = (state.epoch, state.iteration)
        recorded = state.iteration % self.every == 0
        if not (recorded or _is_last_of_epoch(state)):
            return
        norm = self.norm.read()
        if norm is not None:
            self.means.count("grad_norm", norm)
        if recorded:
            speed, wait = self.throughput.since_last()
            state.data_wait = wait
            values = {name: finite(value) for name, value in self.means.last().items()}
            self.rows.add(
                "batch", engine, **values, lr=self._lr, grad_norm=finite(norm), **self._speed(speed, wait, state)
            )

    def _epoch(self, engine: Any) -> None:
        state = engine.state
        self.throughput.epoch_completed()
        means = {name: self.means.mean(name) for name in _MEANS}
        row = {
            **{name: finite(value) for name, value in means.items() if name == "loss" or value is not None},
            "lr": self._lr,
            "train_seconds": round(self.throughput.seconds, 3),
            **self._speed(*self.throughput.of_epoch(), state),
        }
        self.rows.add("epoch", engine, **row)
        validated = self._validated or (self.validator is not None and self.validator.state.epoch == state.epoch)
        scores = validation_scores(self.validator.state, self.structures) if self.validator and validated else {}
        self._validated = False
        if scores and "best_dice" not in scores and scores.get("mean_dice") is not None:
            before = [epoch for epoch in self._epochs if epoch.get("mean_dice") is not None]
            best = max([*before, {**scores, "epoch": state.epoch}], key=lambda epoch: float(epoch["mean_dice"]))
            scores |= {"best_dice": best["mean_dice"], "best_epoch": best["epoch"]}
        if scores:
            self.rows.add("validation", engine, **scores)
        self._record_previews(engine)
        self._epochs.append({"epoch": state.epoch, **row, **scores})
        state.scores = {name: value for name, value in {**row, **scores}.items() if _is_score(name, value)}
        write_json(self.folder / HISTORY, self._summary(engine))

    def _note_validation(self, validator: Any) -> None:
        self._validated = not getattr(validator.state, "sanity_check", False)

    def _speed(self, speed: float | None, wait: float | None, state: Any) -> dict[str, float | None]:
        seconds = self.throughput.seconds_left(state.iteration, state.epoch_length, state.max_epochs)
        return {
            "samples_per_second": finite(speed, 3),
            "data_wait": finite(wait, 4),
            "seconds_left": finite(seconds, 3),
        }

    def _record_previews(self, engine: Any) -> None:
        """Add a row for each image that was drawn since the last call."""
        state = getattr(self.validator, "state", None)
        drawn = getattr(state, "previews", None) or []
        for preview in drawn:
            position = {} if preview["epoch"] else {"iteration": 0}  # drawn before the first epoch
            file = relative_path(preview["file"], self.folder)
            self.rows.add("image", engine, **{**preview, "file": file}, **position)
        drawn.clear()

    def _norm_is_due(self, engine: Any) -> bool:
        """Return True if a batch will be recorded before the next step of the optimizer."""
        until_recorded = -engine.state.iteration % self.every
        return until_recorded < getattr(engine, "accumulation_steps", 1) or _is_last_of_epoch(engine.state)

    def _summary(self, engine: Any) -> dict[str, Any]:
        validated = [epoch for epoch in self._epochs if "dice" in epoch]
        last = validated[-1] if validated else {}
        names = last.get("dice", {})
        return {
            **{name: [epoch.get(name) for epoch in self._epochs] for name in _SERIES},
            "dice": {name: [epoch.get("dice", {}).get(name) for epoch in self._epochs] for name in names},
            "best_dice": last.get("best_dice"),
            "best_epoch": last.get("best_epoch"),
            "max_epochs": engine.state.max_epochs,
            "epochs": self._epochs,
        }


def _loss(output: Any) -> torch.Tensor | None:
    """Return the loss of a batch, on its device; None where the trainer returns none."""
    first = output[0] if isinstance(output, list) and output else output
    loss = first.get("loss") if isinstance(first, Mapping) else first
    if isinstance(loss, float):  # decollated with the rest of a batch, or of a plain Ignite trainer
        return torch.tensor(loss)
    return loss.detach().mean() if isinstance(loss, torch.Tensor) else None


def _batch_size(state: Any) -> int:
    """Return the number of samples in a batch, 0 where it cannot be told."""
    if isinstance(state.output, list):
        return len(state.output)
    for content in (state.output, state.batch):
        images = content.get("image") if isinstance(content, Mapping) else None
        if images is None and isinstance(content, (list, tuple)) and content:
            images = content[0]
        if isinstance(images, torch.Tensor) and images.ndim:
            return len(images)
    return 0


def _is_last_of_epoch(state: Any) -> bool:
    return bool(state.epoch_length) and state.iteration % state.epoch_length == 0


def _is_score(name: str, value: Any) -> bool:
    """Return True if a field of an epoch says in one number how well it went."""
    return isinstance(value, float) and (name == "loss" or name.startswith("mean_"))
