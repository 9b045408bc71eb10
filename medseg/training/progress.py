"""Show how far a run is and how long it will take: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import Any

from ignite.engine import Events
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from medseg.errors import ConfigError
from medseg.training.step import loss_of
from medseg.units import duration

logger = logging.getLogger(__name__)

_PAUSE = 0.2  # seconds between two updates of the bar


class ProgressBar:
    """Show a bar over the whole run with loss, Dice and the time left.

    Not Ignite's `ProgressBar`: that one is over one epoch, and says nothing of the end of the run. Each epoch is a line
    of the log; without a terminal, a long epoch is several.

    Args:
        validator: the evaluator whose key metric is shown; its volumes are counted while it runs.
        every_n_seconds: how often a line is logged within an epoch, where there is no terminal.

    Raises:
        ConfigError: `every_n_seconds` is not above 0.
    """

    affects_result = False  # see medseg.bundle.run_identity

    def __init__(self, validator: Any | None = None, every_n_seconds: float = 60.0) -> None:
        if not every_n_seconds > 0:
            raise ConfigError("progress#every_n_seconds", "it must be above 0", f"got {every_n_seconds}")
        self.validator = validator
        self.every_n_seconds = every_n_seconds
        self._bar: Progress | None = None
        self._loss: Any = float("nan")
        self._loss_sum: Any = 0.0  # of the epoch; on a GPU it is not read before the epoch's end
        self._batches = 0
        self._began = 0.0
        self._first = 0
        self._shown = 0.0
        self._streams: list[tuple[logging.StreamHandler[Any], Any]] = []

    def attach(self, engine: Any) -> None:
        """Follow the trainer, and the validator where there is one. Attach it last."""
        if getattr(engine.state, "rank", 0) > 0:
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)
        engine.add_event_handler(Events.COMPLETED, self._stop)
        engine.add_event_handler(Events.TERMINATE, self._stop)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._failed)
        if self.validator is not None:
            self.validator.add_event_handler(Events.ITERATION_COMPLETED, self._volume)

    def _start(self, engine: Any) -> None:
        self._began, self._first = time.perf_counter(), engine.state.iteration
        self._shown = self._began
        console = Console(stderr=True)
        if not console.is_terminal:
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bar = Progress(*columns, console=console, speed_estimate_period=900)
        total = engine.state.max_epochs * engine.state.epoch_length
        self._task = self._bar.add_task("Training", total=total, completed=engine.state.iteration, note="")
        self._bar.start()
        for handler in logging.getLogger().handlers:  # log lines go above the bar instead of through it
            if isinstance(handler, logging.StreamHandler) and handler.stream in (sys.__stderr__, sys.__stdout__):
                self._streams.append((handler, handler.setStream(sys.stderr)))

    def _step(self, engine: Any) -> None:
        self._loss = loss_of(engine)
        self._loss_sum = self._loss_sum + self._loss
        self._batches += 1
        if self._is_due():  # reading the loss waits for a GPU
            self._show(engine)

    def _is_due(self) -> bool:
        pause = self.every_n_seconds if self._bar is None else _PAUSE
        return self._began > 0 and time.perf_counter() - self._shown >= pause

    def _show(self, engine: Any) -> None:
        self._shown = time.perf_counter()
        state = engine.state
        text = f"Epoch {state.epoch}/{state.max_epochs}"
        if self._bar is not None:
            self._bar.update(self._task, completed=state.iteration, description=text, note=self._note())
        elif state.iteration % (state.epoch_length or 1):  # the end of an epoch has a line of its own
            step = f"step {state.iteration % state.epoch_length}/{state.epoch_length}"
            logger.info("%s, %s: %s, %s", text, step, self._note(), self._left(engine))

    def _volume(self, engine: Any) -> None:
        done, total = engine.state.iteration, engine.state.epoch_length
        note = f"validating {(done - 1) % total + 1}/{total}"
        if self._bar is not None:
            self._bar.update(self._task, note=note)
        elif self._is_due():
            self._shown = time.perf_counter()
            logger.info("Epoch %d: %s", engine.state.epoch, note)

    def _left(self, engine: Any) -> str:
        """Return how long the rest of the run will take."""
        done, total = engine.state.iteration, engine.state.max_epochs * engine.state.epoch_length
        here = done - self._first if self._began else 0  # 0 where an epoch was trained before a restart
        pace = (time.perf_counter() - self._began) / max(1, here)
        return f"{duration(pace * (total - done))} left" if here > 0 else "trained before"

    def _note(self) -> str:
        best = getattr(self.validator.state, "best_metric", -1) if self.validator is not None else -1
        return f"loss {float(self._loss):.3f}" + (f", best Dice {best:.3f}" if best >= 0 else "")

    def _epoch(self, engine: Any) -> None:
        self._show(engine)
        text = f"Epoch {engine.state.epoch}/{engine.state.max_epochs}: loss {self._mean_loss(engine):.4f}"
        state = self.validator.state if self.validator is not None else None
        if state is not None and hasattr(state, "best_metric") and state.metrics and state.epoch == engine.state.epoch:
            now = state.metrics.get(state.key_metric_name, float("nan"))
            text += f", Dice {now:.4f} (best {state.best_metric:.4f} in epoch {state.best_metric_epoch})"
            text += f", F1 {state.metrics['val_f1']:.4f}" if "val_f1" in state.metrics else ""
        logger.info("%s, %s", text, self._left(engine))

    def _mean_loss(self, engine: Any) -> float:
        """Return the epoch's mean loss: that of the history, which remembers the batches before a resume."""
        mean = float(self._loss_sum) / max(1, self._batches)
        self._loss_sum = 0.0
        self._batches = 0
        return float(getattr(engine.state, "scores", {}).get("loss", mean))

    def _stop(self, engine: Any) -> None:
        for handler, stream in self._streams:
            handler.setStream(stream)
        self._streams.clear()
        bar, self._bar = self._bar, None
        if bar is not None:
            with contextlib.suppress(OSError):  # the terminal is gone
                bar.stop()

    def _failed(self, engine: Any, error: BaseException) -> None:
        self._stop(engine)
        raise error
