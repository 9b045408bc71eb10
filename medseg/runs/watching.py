"""Watching runs from outside: one that died is started again, so many times, after growing pauses."""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from medseg.atomic import write_json
from medseg.console_log import redirect_output_to
from medseg.errors import MedsegError, RunError
from medseg.runs.detach import Started, last_lines
from medseg.runs.notifying import Notice
from medseg.runs.resuming import resume_detached
from medseg.runs.runs import SILENT_MINUTES, is_here, progress, standing
from medseg.records import DIED, FAILED, FINISHED, INTERRUPTED, RUNNING, STOPPING, read_record, this_process

logger = logging.getLogger(__name__)

RECORD, LOG, LOCK = "watch.json", "watch.log", ".watch.lock"
GIVEN_UP = "given_up"
PAUSES = (10.0, 30.0, 90.0, 300.0, 900.0)


@dataclass(frozen=True)
class Terms:
    """How a run is watched.

    Args:
        restarts: how often it is started again without having come further in between.
        pauses: seconds before the first restart, the second ..., the last for all that follow.
        notice: who is told.
        trust: whether the runs are trusted, see `medseg.runs.resuming.plan`.
    """

    restarts: int = 5
    pauses: Sequence[float] = PAUSES
    notice: Notice = field(default_factory=Notice)
    trust: bool = False


class Watch:
    """One run that is watched. `step` looks once and never waits; what it knows stands in the run's `watch.json`.

    A run that is stopped is left alone, unless it was stopped before the watching began.

    Args:
        folder: the run's folder.
        terms: how it is watched.
        restart: starts it again; by default in a process of its own, which outlives the watching.
    """

    def __init__(
        self, folder: str | Path, terms: Terms | None = None, restart: Callable[[Path], Started] | None = None
    ) -> None:
        self.folder, self.terms = Path(folder).resolve(), terms or Terms()
        self.attempts, self.restarts, self.ended = 0, 0, ""
        self._restart = restart or functools.partial(resume_detached, trust=self.terms.trust)
        self._starting, self._trouble = False, ""
        self._child: Started | None = None
        self._furthest, self._due, self._first = -1, -1.0, True
        self._fallen = ""  # the state at which the restart that is due was planned
        self._noted: dict[str, Any] = {}
        self._failed = ""

    def look(self, now: float) -> bool:
        """`step`, where whatever goes wrong is a warning: a full disk or a damaged record must not end the watching."""
        try:
            over = self.step(now)
            self._failed = ""
        except Exception as error:  # of whatever kind: nobody may be there to start the watching again
            said = f"{type(error).__name__}: {error}"
            if said != self._failed:
                logger.warning("%s is watched on, but this look at it failed: %s", self.folder.name, said)
            self._failed, over = said, bool(self.ended)
        return over

    def step(self, now: float) -> bool:
        """Look once; whether the watching is over.

        Args:
            now: seconds of a clock that does not go back.
        """
        if self._starting and not self._has_begun():
            return False
        state = standing(self.folder)
        if state == DIED and (self.folder / STOPPING).exists():
            state = INTERRUPTED
        waits = self._due >= 0
        first, self._first = self._first, False
        if state == RUNNING:
            self._due, self._trouble = -1.0, ""
            self._note(state)
        elif state == FINISHED:
            self._end(state, "It has finished.")
        elif state == INTERRUPTED and not (first or self._trouble or (waits and self._fallen == INTERRUPTED)):
            self._end(state, "It was stopped.")
        elif not waits:
            self._fell(state, now, first)
        elif now >= self._due:
            self._start_again()
        return bool(self.ended)

    def _has_begun(self) -> bool:
        """Whether the run that was started again is under way, or is not going to be."""
        child = self._child
        if child is None:
            return True
        code, folder = child.ended(), child.folder()
        if code is None and folder is None:
            return False
        self._starting = False
        if folder is None:
            said = last_lines(child.log, 1)
            self._trouble = f"It could not be started again (exit code {code}). {' '.join(said)}".strip()
        elif folder != self.folder:
            logger.warning("%s was not gone on with; the command began %s", self.folder.name, folder)
        else:
            logger.info("%s goes on, process %d", self.folder.name, child.pid)
        return True

    def _fell(self, state: str, now: float, first: bool) -> None:
        self._fallen = state
        come = progress(self.folder)
        if come > self._furthest:
            self.attempts, self._furthest = 0, come
        trouble, self._trouble = self._trouble, ""
        reason = trouble or self._reason(state)
        tells = state != INTERRUPTED or trouble
        if self.attempts >= self.terms.restarts:
            if tells:
                self._say(state, reason)
            self._end(GIVEN_UP, f"It was started {self.attempts} times without coming further. {reason}")
            return
        pauses = self.terms.pauses
        pause = 0.0 if first or not pauses else pauses[min(self.attempts, len(pauses) - 1)]
        self.attempts += 1
        self._due = now + pause  # before anybody is told: whatever comes of that, it is started again
        if tells:
            self._say(state, reason)
        logger.info(
            "%s is started again in %.0f s (%d of %d)", self.folder.name, pause, self.attempts, self.terms.restarts
        )
        self._note(state, reason)

    def _start_again(self) -> None:
        self._due = -1.0
        try:
            self._child, self._starting = self._restart(self.folder), True
            self.restarts += 1
        except MedsegError as error:
            self._trouble = f"It could not be started again. {error}"

    def _reason(self, state: str) -> str:
        if state == FAILED:
            return str(read_record(self.folder).get("error") or "It failed.")
        if state == DIED:
            record = read_record(self.folder)
            if not is_here(record):
                return f"Nothing was heard of it for {SILENT_MINUTES} min from {record['host']}, where it ran."
            code = self._child.ended() if self._child is not None else None
            if code is not None and code < 0:
                with contextlib.suppress(ValueError):
                    return f"Its process was ended by {signal.Signals(-code).name}."
            return "Its process is gone: killed, out of memory, or the machine went down."
        return f"Its state is '{state}'."

    def _end(self, state: str, reason: str) -> None:
        self.ended = state
        self._say(state, reason)
        self._note(state, reason)

    def _say(self, state: str, reason: str) -> None:
        logger.info("%s: %s. %s", self.folder.name, state.replace("_", " "), reason)
        self.terms.notice.tell(self.folder, state, reason)

    def _note(self, state: str, reason: str = "") -> None:
        content: dict[str, Any] = {
            **this_process(),
            "state": state,
            "reason": reason,
            "attempts": self.attempts,
            "allowed": self.terms.restarts,
            "restarts": self.restarts,
            "ended": bool(self.ended),
        }
        if content != self._noted:
            write_json(self.folder / RECORD, content)
            self._noted = content

    def let_go(self) -> None:
        """End the watching; the run goes on."""
        if self._child is not None:
            self._child.let_go()


def watch(folders: Sequence[Path], terms: Terms, every: float = 2.0) -> bool:
    """Watch runs until each has finished, was stopped, or was given up; whether none was given up.

    Args:
        folders: the runs' folders.
        terms: how they are watched.
        every: seconds between two looks.

    Raises:
        RunError: one of them is watched already.
    """
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(_held(folder))
        redirect_output_to(folders[0], LOG)
        watches = [Watch(folder, terms) for folder in folders]
        for one in watches:
            stack.callback(one.let_go)
            logger.info("Watching %s", one.folder.name)
        left = list(watches)
        while left:
            left = [one for one in left if not one.look(time.monotonic())]
            if left:
                time.sleep(every)
    return all(one.ended != GIVEN_UP for one in watches)


@contextlib.contextmanager
def _held(folder: Path) -> Any:
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise RunError(
            f"run '{folder.name}'", "must be watched by one process", "another one that watches it"
        ) from error
    try:
        yield
    finally:
        lock.release()
