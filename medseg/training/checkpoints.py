"""Checkpoints: what a run resumes from, in the middle of an epoch too, and its best weights."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events

from medseg.atomic import remove_partial
from medseg.errors import ConfigError, WeightsError
from medseg.training.checkpoint_files import (
    BEST,
    LAST,
    PREVIOUS,
    epoch_name,
    plain,
    prune,
    read_newest,
    require_same,
    write,
)
from medseg.training.seeding import rng_state, set_rng_state
from medseg.training.step import accumulating, scaler_of

logger = logging.getLogger(__name__)


class Checkpoints:
    """Save a trainer every few minutes and at each epoch, and let it resume from there when it starts again.

    Not MONAI's `CheckpointSaver`: it writes in place, so a kill in the middle leaves a broken file, and in a
    config it cannot hold the trainer it is given to (a circular reference). This handler takes the trainer when
    it is attached. Attach it after the validation and the history: what a checkpoint resumes from has been recorded
    by then. `Resume` at the head of the list loads before any other handler starts.

    `last.pt`, `previous.pt` (the one before it) and `epoch_NNNN.pt` hold network, optimizer, scheduler, AMP's
    scaler, the trainer's iteration, the best score, random state, gradients between accumulated batches, and the state
    of every handler in `engine.state.stateful`; `best.pt` and `model_path` hold the weights that validated best,
    `model_path` as a plain `state_dict`.

    Once the iterations of an epoch are done, `last.pt` is written before the epoch is validated, unless that would
    cost more than a twentieth of the time since the last one. A run that resumes from there validates first.

    Args:
        folder: where the checkpoints go.
        network: the network.
        optimizer: its optimizer.
        lr_scheduler: its scheduler, if any.
        validator: the evaluator whose key metric says which epoch is best; without one, the last is.
        model_path: where the weights for inference go.
        every: epochs between the checkpoints that stay; 0 keeps none.
        keep: how many of them stay; None is all.
        every_minutes: how often `last.pt` is written in the middle of an epoch; 0 is after each iteration, None never.
        scores_in_filenames: whether those that stay are called after the scores of their epoch as well (what
            `engine.state.scores` holds): `epoch_0005_loss0.412_dice0.831.pt`.
        backup: gets the path of each file that was written, as `backup.send(path)`.

    Raises:
        ConfigError: a number below 0.
    """

    affects_result = False  # see medseg.bundle.run_identity

    def __init__(
        self,
        folder: str | Path,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        model_path: str | Path,
        lr_scheduler: Any | None = None,
        validator: Any | None = None,
        every: int = 5,
        keep: int | None = 3,
        every_minutes: float | None = 15,
        scores_in_filenames: bool = False,
        backup: Any | None = None,
    ) -> None:
        for name, value in (("every", every), ("keep", keep), ("every_minutes", every_minutes)):
            if value is not None and value < 0:
                raise ConfigError(f"checkpoints#{name}", "it must be 0 or more", f"got {value}")
        self.folder = Path(folder)
        self.model_path = Path(model_path)
        self.every = every
        self.keep = keep
        self.every_minutes = every_minutes
        self.scores_in_filenames = scores_in_filenames
        self.backup = backup
        self.network = network
        self.validator = validator
        self._parts: dict[str, Any] = {"network": network, "optimizer": optimizer}
        if lr_scheduler is not None:
            self._parts["lr_scheduler"] = lr_scheduler
        self.saved = 0  # the iteration of the newest checkpoint
        self.loaded = False  # whether it is known where the trainer resumes
        self._loaded = self._due = self._last_is_damaged = self._finished_elsewhere = False
        self._when, self._took = time.monotonic(), 0.0

    def attach(self, engine: Any) -> None:
        """Load at the start; save after iterations and epochs."""
        engine.state.checkpoints = self
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.STARTED, self._finish_here)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    @property
    def best(self) -> tuple[float, int]:
        """Return the best score and its epoch; -1 before the first validation."""
        state = self.validator.state if self.validator is not None else None
        return (float(getattr(state, "best_metric", -1.0)), int(getattr(state, "best_metric_epoch", -1)))

    def load(self, engine: Any) -> None:
        """Resume from the newest good checkpoint, where there is one; once.

        Raises:
            WeightsError: all are damaged, or they belong to another network.
        """
        if self._loaded:
            return
        self._loaded, self._when = True, time.monotonic()
        if getattr(engine.state, "rank", 0) == 0:
            remove_partial(self.folder)
            for left in self.model_path.parent.glob(f".{self.model_path.stem}.*.partial{self.model_path.suffix}"):
                left.unlink(missing_ok=True)
        newest = read_newest(self.folder)
        if newest is None:
            self.loaded = True
            return
        path, content = newest
        self._last_is_damaged = path.name != LAST
        try:
            require_same(path, self.network, content["network"])
            for name, part in self._parts.items():
                part.load_state_dict(content[name])
            restore_order(self.network, content["network"])
            self._load_position(engine, content["trainer"])
            self._load_scaler(engine, content.get("scaler"))
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".rstrip(".")
            fix = "Start a new run with --fresh."
            raise WeightsError(path, f"it is no checkpoint of this run: {reason}", "", fix) from error
        if self.validator is not None:
            self.validator.state.best_metric, self.validator.state.best_metric_epoch = content["best"]
        self._load_gradients(engine, content.get("gradients", {}), content.get("scaler"))
        # a scheduler asks whether the optimizer has made a step: it has, in the process before
        vars(self._parts["optimizer"])["_opt_called"] = engine.state.iteration > 0
        handlers = getattr(engine.state, "stateful", None) or {}
        for name, state in content.get("stateful", {}).items():
            if name in handlers:
                handlers[name].load_state_dict(state)
        if getattr(engine.state, "rank", 0) == 0 and "rng" in content:
            set_rng_state(content["rng"])
        self._due, self.saved = bool(content.get("epoch_due", False)), engine.state.iteration
        self.loaded = True
        length = engine.state.epoch_length or 1
        where = f"epoch {engine.state.epoch} of {engine.state.max_epochs}"
        if engine.state.iteration % length:
            where = f"iteration {engine.state.iteration % length} of {length} in epoch {engine.state.epoch + 1}"
        logger.info("Resuming after %s%s, from %s", where, " (not validated yet)" if self._due else "", path)

    def finish_last(self, engine: Any) -> None:
        """Finish an epoch that is due only when all handlers have started, those attached after this one too."""
        self._finished_elsewhere = True
        engine.add_event_handler(Events.STARTED, self._finish)

    def _finish_here(self, engine: Any) -> None:
        if not self._finished_elsewhere:
            self._finish(engine)

    def _finish(self, engine: Any) -> None:
        """Fire the end of an epoch, where a checkpoint was written before it.

        To the other handlers it is an epoch that is resumed with no iteration left.
        """
        if self._due:
            self._due = False
            engine.fire_event(Events.EPOCH_STARTED)
            engine.fire_event(Events.EPOCH_COMPLETED)

    def _iteration(self, engine: Any) -> None:
        passed = time.monotonic() - self._when
        done = engine.state.epoch_length is not None and engine.state.iteration % engine.state.epoch_length == 0
        timed = self.every_minutes is not None and passed >= self.every_minutes * 60
        if timed or (done and (self.every_minutes is None or passed >= 20 * self._took)):
            self.save_iteration(engine)

    def save_iteration(self, engine: Any) -> None:
        """Write `last.pt` between two iterations, or between the last of an epoch and its validation.

        Raises:
            OutputError: it cannot be written; the one before it stays whole.
        """
        if getattr(engine.state, "rank", 0) > 0 or engine.state.iteration == self.saved:
            return
        length = engine.state.epoch_length
        self._save_last(engine, self._content(engine, due=bool(length) and engine.state.iteration % length == 0))

    def save(self, engine: Any) -> None:
        """Write the checkpoints of this epoch.

        Raises:
            OutputError: a file cannot be written; the one before it stays whole.
        """
        if getattr(engine.state, "rank", 0) > 0:
            return
        epoch, best = engine.state.epoch, self.best
        content = self._content(engine, due=False)
        if self.validator is None or best[1] == epoch or not self.model_path.is_file():
            weights = content["network"]
            self._write(self.folder / BEST, {"network": weights, "best": best})
            self._write(self.model_path, weights)
        if self.every and epoch % self.every == 0 and self.keep != 0:
            scores = getattr(engine.state, "scores", None) if self.scores_in_filenames else None
            self._write(self.folder / epoch_name(epoch, scores or {}), content)
            prune(self.folder, self.keep)
        self._save_last(engine, content)

    def _content(self, engine: Any, due: bool) -> dict[str, Any]:
        state = engine.state
        content = {name: part.state_dict() for name, part in self._parts.items()}
        position = {"iteration": state.iteration, "epoch_length": state.epoch_length, "max_epochs": state.max_epochs}
        content |= {"trainer": position, "best": self.best, "epoch_due": due, "rng": rng_state()}
        handlers = getattr(state, "stateful", None) or {}
        content["stateful"] = {name: plain(handler.state_dict(), name) for name, handler in handlers.items()}
        scaler = getattr(engine, "scaler", None)
        if scaler is not None and scaler.is_enabled():
            content["scaler"] = scaler.state_dict()
        if accumulating(engine):
            parameters = self.network.named_parameters()
            content["gradients"] = {
                name: parameter.grad for name, parameter in parameters if parameter.grad is not None
            }
        return content

    def _save_last(self, engine: Any, content: dict[str, Any]) -> None:
        began = time.monotonic()
        last = self.folder / LAST
        self._write(last, content, None if self._last_is_damaged else self.folder / PREVIOUS)
        self._last_is_damaged, self.saved = False, engine.state.iteration
        self._when = time.monotonic()
        self._took = self._when - began

    def _write(self, path: Path, content: Any, previous: Path | None = None) -> None:
        write(path, content, previous)
        if self.backup is not None:
            self.backup.send(path)

    def _load_gradients(self, engine: Any, gradients: dict[str, torch.Tensor], scaler: dict[str, Any] | None) -> None:
        """Restore gradients between accumulated batches, in the scale that AMP has now, or without one."""
        now = scaler_of(engine)
        factor = (now.get_scale() if now is not None else 1.0) / (scaler or {}).get("scale", 1.0)
        for name, parameter in self.network.named_parameters():
            if name in gradients:
                parameter.grad = gradients[name].to(parameter.device, parameter.dtype) * factor

    @staticmethod
    def _load_position(engine: Any, state: dict[str, Any]) -> None:
        """Go to the saved iteration; to the start of its epoch, where an epoch has another length now."""
        iteration, length = int(state["iteration"]), engine.state.epoch_length
        before = state.get("epoch_length")
        if length and before and length != before:
            logger.warning("An epoch had %d iterations and has %d now: resuming at the start of one", before, length)
            iteration = iteration // before * length
        engine.load_state_dict(
            {"iteration": iteration, "epoch_length": length or before, "max_epochs": engine.state.max_epochs}
        )

    @staticmethod
    def _load_scaler(engine: Any, state: dict[str, Any] | None) -> None:
        """Restore the scale of AMP's scaler, which the trainer makes anew at each start; a CPU has no scaler."""
        scaler = getattr(engine, "scaler", None)
        if state and scaler is not None and scaler.is_enabled():
            scaler.load_state_dict(state)


class Resume:
    """Let the trainer resume from its newest checkpoint before any other handler starts.

    Not MONAI's `CheckpointLoader`: what is loaded, and from where, is what the `Checkpoints` of the same trainer
    knows; this handler stands for its place in the list, which is the head.
    """

    affects_result = False  # see medseg.bundle.run_identity

    def attach(self, engine: Any) -> None:
        """Load when the trainer starts."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Load the newest checkpoint, if the trainer has `Checkpoints`."""
        checkpoints = getattr(engine.state, "checkpoints", None)
        if checkpoints is not None:
            checkpoints.load(engine)


def restore_order(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Give a network's weights the memory layout that they were saved in.

    Inference may change it to channels last, and what is computed with the weights then differs in its last bits.
    """
    for name, weight in network.state_dict(keep_vars=True).items():
        saved = weights[name]
        if weight.stride() != saved.stride():
            ordered = torch.empty_strided(saved.size(), saved.stride(), dtype=weight.dtype, device=weight.device)
            weight.data = ordered.copy_(saved)
