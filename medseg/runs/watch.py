"""Watch runs from outside: restart one that died, so many times, after growing pauses."""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from medseg.atomic import write_json
from medseg.errors import MedsegError, RunError
from medseg.runs.detach import Detached, redirect_output_to
from medseg.runs.notify import Notifier
from medseg.runs.record import (
    DIED,
    FAILED,
    FINISHED,
    INTERRUPTED,
    RUNNING,
    STOPPING,
    is_local,
    read_record,
    this_process,
)
from medseg.runs.resume import resume_detached
from medseg.runs.run import SILENT_MINUTES, Run, run_state
from medseg.runs.text_log import last_lines

logger = logging.getLogger(__name__)

WATCH_RECORD = "watch.json"
WATCH_LOG = "watch.log"
WATCH_LOCK = ".watch.lock"
GIVEN_UP = "given_up"
PAUSES = (10.0, 30.0, 90.0, 300.0, 900.0)


@dataclass(frozen=True)
class WatchPolicy:
    """How runs are watched.

    Args:
        restarts: how often a run is restarted that makes no progress in between.
        pauses: seconds before the first restart, the second ..., the last for all that follow.
        notifier: sends the messages.
        trust: see `medseg.runs.resume.resume_command`.
    """

    restarts: int = 5
    pauses: Sequence[float] = PAUSES
    notifier: Notifier = field(default_factory=Notifier)
    trust: bool = False


class Watch:
    """Watch one run. `step` looks once and never waits; its state is in the run's `watch.json`.

    A run that is stopped is left alone, unless it was stopped before the watching began.

    Args:
        folder: the run's folder.
        policy: how it is watched.
        restart: restarts it; by default in a process that outlives the watching.
    """

    def __init__(
        self, folder: str | Path, policy: WatchPolicy | None = None, restart: Callable[[Path], Detached] | None = None
    ) -> None:
        self.folder = Path(folder).resolve()
        self.policy = policy or WatchPolicy()
        self.attempts = 0  # restarts without progress
        self.restarts = 0  # restarts in all
        self.result = ""  # the state with which the watching ended
        self._restart = restart or functools.partial(resume_detached, trust=self.policy.trust)
        self._child: Detached | None = None
        self._starting = False
        self._start_problem = ""  # why the latest restart began no run
        self._progress = -1  # the furthest iteration so far
        self._due = -1.0  # when the next restart is due; negative where none is
        self._due_state = ""  # the run's state when that restart was planned
        self._first_step = True
        self._written: dict[str, Any] = {}
        self._last_failure = ""

    def look(self, now: float) -> bool:
        """Call `step`; what fails there is a warning: a full disk or a damaged record must not end the watching."""
        try:
            over = self.step(now)
            self._last_failure = ""
        except Exception as error:  # of any kind: the watching runs unattended
            failure = f"{type(error).__name__}: {error}"
            if failure != self._last_failure:
                logger.warning("%s is still watched, but this look at it failed: %s", self.folder.name, failure)
            self._last_failure = failure
            over = bool(self.result)
        return over

    def step(self, now: float) -> bool:
        """Look once and act; return True once the watching is over.

        Args:
            now: seconds of a clock that does not go back.
        """
        if self._starting and not self._has_started():
            return False
        state = run_state(self.folder)
        if state == DIED and (self.folder / STOPPING).exists():
            state = INTERRUPTED
        waiting = self._due >= 0
        first_step = self._first_step
        self._first_step = False
        if state == RUNNING:
            self._due = -1.0
            self._start_problem = ""
            self._write_record(state)
        elif state == FINISHED:
            self._end(state, "It has finished.")
        elif state == INTERRUPTED and not (
            first_step or self._start_problem or (waiting and self._due_state == INTERRUPTED)
        ):
            self._end(state, "It was stopped.")
        elif not waiting:
            self._plan_restart(state, now, first_step)
        elif now >= self._due:
            self._start_again()
        return bool(self.result)

    def _has_started(self) -> bool:
        """Return True once the run that was restarted is under way, or is not going to be."""
        child = self._child
        if child is None:
            return True
        code = child.exit_code()
        folder = child.folder()
        if code is None and folder is None:
            return False
        self._starting = False
        if folder is None:
            output = " ".join(last_lines(child.log, 1))
            self._start_problem = f"It could not be restarted (exit code {code}). {output}".strip()
        elif folder != self.folder:
            logger.warning("%s was not resumed; the command started %s", self.folder.name, folder)
        else:
            logger.info("%s was resumed, process %d", self.folder.name, child.pid)
        return True

    def _plan_restart(self, state: str, now: float, first_step: bool) -> None:
        self._due_state = state
        progress = Run(self.folder).iteration or 0
        if progress > self._progress:
            self.attempts = 0
            self._progress = progress
        problem = self._start_problem
        self._start_problem = ""
        reason = problem or self._reason(state)
        notify = state != INTERRUPTED or bool(problem)
        if self.attempts >= self.policy.restarts:
            if notify:
                self._notify(state, reason)
            self._end(GIVEN_UP, f"It was restarted {self.attempts} times without any progress. {reason}")
            return
        pauses = self.policy.pauses
        pause = 0.0 if first_step or not pauses else pauses[min(self.attempts, len(pauses) - 1)]
        self.attempts += 1
        self._due = now + pause  # before the message is sent: even if that fails, the run is restarted
        if notify:
            self._notify(state, reason)
        logger.info(
            "%s will be restarted in %.0f s (%d of %d)", self.folder.name, pause, self.attempts, self.policy.restarts
        )
        self._write_record(state, reason)

    def _start_again(self) -> None:
        self._due = -1.0
        try:
            self._child = self._restart(self.folder)
            self._starting = True
            self.restarts += 1
        except MedsegError as error:
            self._start_problem = f"It could not be restarted. {error}"

    def _reason(self, state: str) -> str:
        if state == FAILED:
            return str(read_record(self.folder).get("error") or "It failed.")
        if state == DIED:
            record = read_record(self.folder)
            if not is_local(record):
                return f"There was no sign of life for {SILENT_MINUTES} min from {record['host']}, where it ran."
            code = self._child.exit_code() if self._child is not None else None
            if code is not None and code < 0:
                with contextlib.suppress(ValueError):
                    return f"Its process was ended by {signal.Signals(-code).name}."
            return "Its process is gone: killed, out of memory, or the machine went down."
        return f"Its state is '{state}'."

    def _end(self, state: str, reason: str) -> None:
        self.result = state
        self._notify(state, reason)
        self._write_record(state, reason)

    def _notify(self, state: str, reason: str) -> None:
        logger.info("%s: %s. %s", self.folder.name, state.replace("_", " "), reason)
        self.policy.notifier.send(self.folder, state, reason)

    def _write_record(self, state: str, reason: str = "") -> None:
        content: dict[str, Any] = {
            **this_process(),
            "state": state,
            "reason": reason,
            "attempts": self.attempts,
            "allowed": self.policy.restarts,
            "restarts": self.restarts,
            "ended": bool(self.result),
        }
        if content != self._written:
            write_json(self.folder / WATCH_RECORD, content)
            self._written = content

    def release(self) -> None:
        """End the watching; the run lives on."""
        if self._child is not None:
            self._child.release()


def watch(folders: Sequence[Path], policy: WatchPolicy, every: float = 2.0) -> bool:
    """Watch runs until each has finished, was stopped, or was given up.

    Args:
        folders: the runs' folders.
        policy: how they are watched.
        every: seconds between two looks.

    Returns:
        False if one of them was given up.

    Raises:
        RunError: one of them is watched already.
    """
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(_watch_lock(folder))
        redirect_output_to(folders[0], WATCH_LOG)
        watches = [Watch(folder, policy) for folder in folders]
        for run_watch in watches:
            stack.callback(run_watch.release)
            logger.info("Watching %s", run_watch.folder.name)
        active = list(watches)
        while active:
            active = [run_watch for run_watch in active if not run_watch.look(time.monotonic())]
            if active:
                time.sleep(every)
    return all(run_watch.result != GIVEN_UP for run_watch in watches)


@contextlib.contextmanager
def _watch_lock(folder: Path) -> Iterator[None]:
    lock = filelock.FileLock(folder / WATCH_LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise RunError(f"run '{folder.name}'", "another process watches it already") from error
    try:
        yield
    finally:
        lock.release()
