"""Save a run when a signal ends it, and leave with an exit code that says it can be resumed."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.util
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from ignite.engine import Events

from medseg.runs.record import RESUMABLE, STOP, STOPPING

logger = logging.getLogger(__name__)

_NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")  # the last on Windows alone
_exits: set[int] = set()  # the processes that end the data loader's when they exit
_LOOK = 1.0  # seconds between two looks for a request to stop
_WAITS, _STEPS, _ENDS = "waits for data", "makes a step", "starts, or ends an epoch"


class Interrupted(SystemExit):
    """Report that a run was stopped from outside and can be resumed; the exit code is `medseg.runs.record.RESUMABLE`.

    Args:
        reason: the name of the signal.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(RESUMABLE)
        self.reason = reason

    def __str__(self) -> str:
        """Return the reason, which Ignite logs."""
        return f"stopped by {self.reason}"


class Interruption:
    """Save the trainer and leave with `Interrupted` when SIGTERM or SIGINT arrives in this context.

    Not Ignite's `Checkpoint` or `TimeLimit`, which know no signals. A step that was begun is finished; while the
    trainer waits for data it is saved and left at once; before the first iteration and while an epoch is validated
    it is left at once, for a checkpoint exists already. The first signal restores the system's own action, so that a
    second one stops at once. A signal that was ignored (by `nohup`, say) stays ignored.

    Args:
        trainer: the trainer; saved by its `Checkpoints`, where it has them.
        folder: the run's folder. A file `medseg.runs.record.STOP` in it asks like a signal, after the step in which it
            is noticed. The first signal leaves `medseg.runs.record.STOPPING` there: a run that a second one
            ended before it could write its state is then known to have been stopped. Default: no mark.
    """

    def __init__(self, trainer: Any, folder: Path | None = None) -> None:
        self.trainer, self.folder, self.reason = trainer, folder, ""
        self._phase, self._process = _ENDS, os.getpid()
        self._before: dict[signal.Signals, Any] = {}
        self._level: int | None = None
        self._looked = 0.0

    def __enter__(self) -> Interruption:
        """Follow the trainer, and handle the signals if this is the main thread."""
        on = getattr(self.trainer, "add_event_handler", lambda *_: None)
        on(Events.EPOCH_STARTED, self._enter_phase, _WAITS)
        on(Events.GET_BATCH_COMPLETED, self._enter_phase, _STEPS)
        on(Events.ITERATION_COMPLETED, self._iteration)
        on(Events.EPOCH_COMPLETED, self._epoch)
        self._take_request()  # one that an earlier process did not live to see
        if threading.current_thread() is threading.main_thread():
            for name in _NAMES:
                number = getattr(signal, name, None)
                if number is None or (signal.getsignal(number) is signal.SIG_IGN and name != "SIGTERM"):
                    continue
                self._before[number] = signal.signal(number, self._received)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Save what is not saved yet, end the loader's processes, restore the signals, and leave if asked to."""
        if kind is None and not self.reason:
            self._give_back()
            return
        try:
            if kind is not None and not isinstance(error, Interrupted):
                return
            if self._phase == _WAITS:
                self._save()
            if kind is None:
                raise Interrupted(self.reason)
        finally:
            end_workers()
            self._give_back()

    def _received(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked process of the data loader, which is not the one to stop
            return
        # A terminal that closes sends SIGHUP twice; a second one of the other signals stops at once.
        for handled in self._before:
            signal.signal(handled, signal.SIG_IGN if handled.name == "SIGHUP" else signal.SIG_DFL)
        self.reason = signal.Signals(number).name
        self._mark()
        if self._phase != _STEPS:
            ignite = logging.getLogger("ignite")  # its engines log an exception as an error
            self._level = ignite.level
            ignite.setLevel(logging.CRITICAL)
            raise Interrupted(self.reason)
        with contextlib.suppress(RuntimeError):  # the signal came in the middle of writing a line
            logger.info("%s: finishing this iteration, then saving; a second signal stops at once", self.reason)

    def _mark(self) -> None:
        if self.folder is not None:
            with contextlib.suppress(OSError):
                (self.folder / STOPPING).touch()

    def _take_request(self) -> bool:
        """Remove the file that asks the run to stop, and return True if there was one; looked for once a second."""
        if self.folder is None or time.monotonic() - self._looked < _LOOK:
            return False
        self._looked = time.monotonic()
        try:
            (self.folder / STOP).unlink()
        except OSError:
            return False
        return True

    def _enter_phase(self, engine: Any, phase: str) -> None:
        self._phase = phase

    def _iteration(self, engine: Any) -> None:
        length = engine.state.epoch_length
        done = length is not None and engine.state.iteration % length == 0
        self._phase = _ENDS if done else _WAITS  # from here on a signal leaves by itself
        if not self.reason and self._take_request():
            self.reason = "medseg runs stop"
            self._mark()
        if self.reason:
            self._save()
            engine.terminate(skip_completed=True)

    def _epoch(self, engine: Any) -> None:
        if self.reason:  # Ignite passes an exception on from an iteration only
            engine.terminate(skip_completed=True)

    def _save(self) -> None:
        checkpoints = getattr(self.trainer.state, "checkpoints", None)
        if checkpoints is not None:
            checkpoints.save_iteration(self.trainer)

    def _give_back(self) -> None:
        for number, before in self._before.items():
            if not (self.reason and number.name == "SIGHUP"):  # what is left to write and send must finish
                signal.signal(number, before)
        self._before.clear()
        if self._level is not None:
            logging.getLogger("ignite").setLevel(self._level)


def ignore_signals() -> None:
    """Ignore signals in a data loader's process: they reach the whole group, and the trainer still needs data."""
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, signal.SIG_IGN)


def end_workers() -> None:
    """Kill the data loader's processes: they keep nothing, ignore SIGTERM, and may be in the middle of a volume."""
    children = [child for child in multiprocessing.active_children() if child.daemon]
    if not children:
        return
    number = getattr(signal, "SIGCHLD", None)
    main = threading.current_thread() is threading.main_thread()
    # torch takes the death of a loader's process for an error
    before = signal.signal(number, signal.SIG_DFL) if number is not None and main else None
    try:
        for child in children:
            child.kill()
        for child in children:
            child.join(5)
    finally:
        if number is not None and before is not None:
            signal.signal(number, before)


def end_workers_at_exit() -> None:
    """End the data loader's processes when this one exits: multiprocessing would send SIGTERM, and wait for ever."""
    if os.getpid() not in _exits:
        _exits.add(os.getpid())
        multiprocessing.util.Finalize(None, end_workers, exitpriority=10)
