"""Small handlers of a training: the learning rate, when to stop, and several handlers as one."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import ignite.handlers
from ignite.engine import Events
from monai.handlers import ValidationHandler

from medseg.errors import ConfigError
from medseg.training.step import accumulating

logger = logging.getLogger(__name__)


class AttachHandlers:
    """Attach a mapping of handlers to an engine, in their order; what is None is left out.

    Not a list of handlers, as MONAI's engines take it: in a mapping, an overlay changes or removes one by its name.

    Args:
        handlers: handlers by name, such as `medseg.bundle.default_handlers` returns.

    Example:
        >>> AttachHandlers({"clip": ClipGradients(optimizer, 12), "progress": None}).attach(trainer)  # doctest: +SKIP
    """

    def __init__(self, handlers: Mapping[str, Any]) -> None:
        self.handlers = {name: handler for name, handler in handlers.items() if handler is not None}

    def attach(self, engine: Any) -> None:
        """Attach them all."""
        for handler in self.handlers.values():
            handler.attach(engine)


def save_with_checkpoints(engine: Any, name: str, handler: Any) -> None:
    """Let checkpoints hold the state of a handler: whatever is in `engine.state.stateful`, by name."""
    if getattr(engine.state, "stateful", None) is None:
        engine.state.stateful = {}
    engine.state.stateful[name] = handler


class Validation(ValidationHandler):  # type: ignore[misc]
    """Run the validator every `interval` epochs, as MONAI's `ValidationHandler`, and always after the last epoch.

    Otherwise a run that is shorter than the interval would end without a score, and without a best checkpoint.

    Args:
        interval: in epochs, or in iterations with `epoch_level=False`.
        validator: MONAI's evaluator.
        epoch_level: whether the interval is in epochs.
    """

    validated_at: int | None = None

    def attach(self, engine: Any) -> None:
        """Follow the trainer."""
        super().attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._validate_last)

    def __call__(self, engine: Any) -> None:
        """Validate, and remember after which iteration: the validator's epoch is also that of a sanity check."""
        self.validated_at = engine.state.iteration
        super().__call__(engine)

    def _validate_last(self, engine: Any) -> None:
        if engine.state.epoch == engine.state.max_epochs and self.validated_at != engine.state.iteration:
            self(engine)


class LrSchedule:
    """Step a schedule of the learning rate after each epoch, or after each step of the optimizer.

    Not MONAI's `LrScheduleHandler`, which steps after each batch where it does not step by the epoch: where gradients
    of several batches are accumulated, that one ends its schedule too early, and steps before the optimizer did.

    Args:
        lr_scheduler: torch's scheduler; one that goes by steps is made for `steps_per_epoch` of them in each epoch.
        epoch_level: whether it goes by epochs.
    """

    def __init__(self, lr_scheduler: Any, epoch_level: bool = True) -> None:
        self.lr_scheduler = lr_scheduler
        self.epoch_level = epoch_level

    def attach(self, engine: Any) -> None:
        """Step after epochs, or after those iterations that end a step of the optimizer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED if self.epoch_level else Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Step, if the optimizer did."""
        if self.epoch_level or not accumulating(engine):
            self.lr_scheduler.step()


def steps_per_epoch(batches: int, accumulation_steps: int = 1) -> int:
    """Return how often the optimizer steps in an epoch; the last batches count, however few they are.

    >>> steps_per_epoch(13, 2)
    7
    """
    return -(-batches // accumulation_steps)


class EarlyStopping:
    """End a run after `patience` validations in a row that are no better than the best before them.

    Not Ignite's `EarlyStopping`, which does the counting here: that one wants the trainer when it is made, which in a
    config is a circular reference, and takes NaN for the best score. Validations are counted, not epochs; NaN (no
    structure to measure) is no improvement. The count goes into the checkpoints; `engine.state.stop_reason` says why
    the run ended.

    Args:
        validator: the evaluator whose key metric is the score, larger is better.
        patience: validations without improvement after which the run ends, at least 1.
        min_delta: how much a score must be above the best before it to count as better.

    Raises:
        ConfigError: `patience` is below 1 or `min_delta` below 0.
    """

    def __init__(self, validator: Any, patience: int, min_delta: float = 0.0) -> None:
        require_patience(patience)
        if not min_delta >= 0:
            raise ConfigError("early_stopping#min_delta", "it must be 0 or more", f"got {min_delta}")
        self.validator = validator
        self.patience = patience
        self.min_delta = float(min_delta)
        self._trainer: Any = None
        self._counter: Any = None

    def attach(self, engine: Any) -> None:
        """Count every validation while this trainer runs, except the sanity validation."""
        self._trainer = engine
        self._counter = ignite.handlers.EarlyStopping(
            self.patience, lambda _: self._score(), engine, threshold=self.min_delta, cumulative=True
        )
        self._counter.best_score = -math.inf  # so that a first score of NaN counts as well
        self._counter.logger = logger
        save_with_checkpoints(engine, "early_stopping", self)
        self.validator.add_event_handler(Events.COMPLETED, self._validated)

    def _score(self) -> float:
        state = self.validator.state
        score = float(state.metrics.get(getattr(state, "key_metric_name", ""), math.nan))
        return -math.inf if math.isnan(score) else score

    def _validated(self, _: Any) -> None:
        if getattr(self.validator.state, "sanity_check", False):
            return
        self._counter(self.validator)
        if self._counter.counter >= self.patience:
            self._record_reason()

    def _record_reason(self) -> None:
        best = self._counter.best_score
        comparison = f"better than {best:.4f}" if math.isfinite(best) else "with a score"
        reason = f"early stopping: no validation {comparison} in the last {self._counter.counter}"
        self._trainer.state.stop_reason = reason
        logger.info("The run ends here, %s", reason)

    def state_dict(self) -> dict[str, Any]:
        """Return the count and the best score that it goes by; None where there was no score."""
        best = self._counter.best_score
        return {"counter": self._counter.counter, "best_score": best if math.isfinite(best) else None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume counting; a run that had stopped already stops again, unless `patience` was raised since."""
        best = state["best_score"]
        self._counter.counter = int(state["counter"])
        self._counter.best_score = -math.inf if best is None else float(best)
        if self._counter.counter >= self.patience:
            self._record_reason()
            self._trainer.terminate()


def require_patience(patience: int | None) -> None:
    """Check a patience before a data set is read for it; None is for no early stopping.

    Raises:
        ConfigError: it is no whole number of 1 or more.
    """
    if patience is not None and (not isinstance(patience, int) or isinstance(patience, bool) or patience < 1):
        problem = "it must be a whole number of validations, 1 or more, or null"
        raise ConfigError("early_stopping#patience", problem, f"got {patience!r}")
