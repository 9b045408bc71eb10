"""Small handlers of a training: the learning rate, when to stop, and several handlers as one."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import ignite.handlers
from ignite.engine import Events

from medseg.errors import ConfigError
from medseg.training.checkpoints import accumulating

logger = logging.getLogger(__name__)


class AttachHandlers:
    """Attach a mapping of handlers to an engine, in their order; what is None is left out.

    Not a list of handlers, as MONAI's engines take it: in a mapping, an overlay changes or removes one by its name.

    Args:
        handlers: handlers by name, such as `medseg.bundle.default_handlers` returns.
    """

    def __init__(self, handlers: Mapping[str, Any]) -> None:
        self.handlers = {name: handler for name, handler in handlers.items() if handler is not None}

    def attach(self, engine: Any) -> None:
        """Attach them all."""
        for handler in self.handlers.values():
            handler.attach(engine)


class LrSchedule:
    """Step a schedule of the learning rate after each epoch, or after each step of the optimizer.

    Not MONAI's `LrScheduleHandler`, which steps after each batch where it does not step by the epoch: where gradients
    of several batches are added up, that one is through its schedule too early, and steps before the optimizer did.

    Args:
        lr_scheduler: torch's scheduler; one that goes by steps is made for `steps_per_epoch` of them in each epoch.
        epoch_level: whether it goes by epochs.
    """

    def __init__(self, lr_scheduler: Any, epoch_level: bool = True) -> None:
        self.lr_scheduler, self.epoch_level = lr_scheduler, epoch_level

    def attach(self, engine: Any) -> None:
        """Step after epochs, or after those iterations that end a step of the optimizer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED if self.epoch_level else Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Step, if the optimizer did."""
        if self.epoch_level or not accumulating(engine):
            self.lr_scheduler.step()


def steps_per_epoch(batches: int, accumulation_steps: int = 1) -> int:
    """How often the optimizer steps in an epoch; the last batches count, however few they are.

    >>> steps_per_epoch(13, 2)
    7
    """
    return -(-batches // accumulation_steps)


class EarlyStopping:
    """End a run after `patience` validations in a row that are no better than the best before them.

    Not Ignite's `EarlyStopping`, which does the counting here: that one wants the trainer when it is made, which in a
    config is a circular reference, and takes a score that is not a number for the best one. This handler takes the
    trainer when it is attached. Validations are counted, not epochs; a score that is not a number (no structure to
    measure) is no improvement. The count goes into the checkpoints; `engine.state.stop_reason` says why the run ended.

    Args:
        validator: the evaluator whose key metric is the score, larger is better.
        patience: validations without improvement after which the run ends, at least 1.
        min_delta: what a score must be above the best before it to count as better.

    Raises:
        ConfigError: a patience below 1 or a `min_delta` below 0.
    """

    def __init__(self, validator: Any, patience: int, min_delta: float = 0.0) -> None:
        require_patience(patience)
        if not min_delta >= 0:
            raise ConfigError("early_stopping, min_delta", "must be 0 or more", f"{min_delta}")
        self.validator, self.patience, self.min_delta = validator, patience, float(min_delta)
        self._trainer: Any = None
        self._count: Any = None

    def attach(self, engine: Any) -> None:
        """Count whatever validation runs while this trainer does, but for the first look."""
        self._trainer = engine
        self._count = ignite.handlers.EarlyStopping(
            self.patience, lambda _: self._score(), engine, threshold=self.min_delta, cumulative=True
        )
        self._count.best_score = -math.inf  # so that a first score that is not a number counts, too
        self._count.logger = logger
        kept = getattr(engine.state, "kept", None)
        if kept is None:
            kept = engine.state.kept = {}
        kept["early_stopping"] = self
        self.validator.add_event_handler(Events.COMPLETED, self._validated)

    def _score(self) -> float:
        state = self.validator.state
        score = float(state.metrics.get(state.key_metric_name, math.nan))
        return -math.inf if math.isnan(score) else score

    def _validated(self, _: Any) -> None:
        if getattr(self.validator.state, "first_look", False):
            return
        self._count(self.validator)
        if self._count.counter >= self.patience:
            self._say()

    def _say(self) -> None:
        count, best = self._count.counter, self._count.best_score
        than = f"better than {best:.4f}" if math.isfinite(best) else "with a score"
        reason = f"early stopping: no validation {than} in the last {count}"
        self._trainer.state.stop_reason = reason
        logger.info("The run ends here, %s", reason)

    def state_dict(self) -> dict[str, Any]:
        """The count and the best score that it goes by; None where there was none."""
        best = self._count.best_score
        return {"counter": self._count.counter, "best_score": best if math.isfinite(best) else None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting; a run that had stopped already stops again, unless `patience` was raised since."""
        best = state["best_score"]
        self._count.counter = int(state["counter"])
        self._count.best_score = -math.inf if best is None else float(best)
        if self._count.counter >= self.patience:
            self._say()
            self._trainer.terminate()


def require_patience(patience: int | None) -> None:
    """See that a patience can be meant, before a data set is read for it; None is none.

    Raises:
        ConfigError: it is no whole number of 1 or more.
    """
    if patience is not None and (not isinstance(patience, int) or isinstance(patience, bool) or patience < 1):
        rule = "must be a whole number of validations, 1 or more, or null"
        raise ConfigError("early_stopping", rule, f"{patience!r}")
