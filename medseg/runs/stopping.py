"""Stopping a run from outside: it saves first, or it is killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from medseg.atomic import write_json
from medseg.errors import RunError
from medseg.runs.runs import is_here, summarize
from medseg.records import DIED, INTERRUPTED, RECORD, RUNNING, read_record, state_of


@dataclass(frozen=True)
class Stopped:
    """What came of stopping.

    Args:
        state: how the run stands now; still `running` where it has not ended in time.
        seconds: how long it took.
        killed: whether it was killed, and so goes on from its last checkpoint.
    """

    state: str
    seconds: float
    killed: bool


def stop(
    folder: str | Path, timeout: float = 120.0, *, now: bool = False, waiting: Callable[[float], None] | None = None
) -> Stopped:
    """Ask a run to save and end (SIGTERM; Ctrl-Break on Windows), and wait until it has.

    Args:
        folder: the run's folder.
        timeout: seconds to wait; afterwards the run is left as it is, still saving perhaps.
        now: kill it instead: what came after its last checkpoint is lost.
        waiting: called again and again with the seconds that have passed.

    Raises:
        RunError: it is not running, runs on another machine, or cannot be signalled.
    """
    folder = Path(folder)
    record = read_record(folder)
    _require_running(folder, record)
    began, process = time.monotonic(), _process(record)
    if process is not None:
        _signal(folder, process, now)
    while process is not None and _lives(process):
        passed = time.monotonic() - began
        if passed > timeout:
            break
        if waiting is not None:
            waiting(passed)
        time.sleep(0.1)
    state = state_of(read_record(folder))
    if now and state == DIED:
        # The run could not write it itself, and nobody shall take it for one that died of something.
        write_json(folder / RECORD, {**read_record(folder), "state": INTERRUPTED, "error": None})
        state = INTERRUPTED
    return Stopped(state, time.monotonic() - began, now)


def _require_running(folder: Path, record: dict[str, Any]) -> None:
    state = state_of(record)
    thing = f"run '{folder.name}'"
    if state != RUNNING:
        fix = f"Go on with it: medseg runs resume {folder.name}" if state not in ("finished", "unknown") else ""
        raise RunError(thing, "must be running to be stopped", f"the state '{state}'", fix)
    if not is_here(record):
        host = record["host"]
        raise RunError(thing, "must be stopped on the machine that it runs on", f"one on {host}", "Stop it there.")


def _process(record: dict[str, Any]) -> psutil.Process | None:
    """The process of a run that was alive a moment ago; None where it has ended since."""
    try:
        return psutil.Process(int(record["pid"]))
    except (psutil.NoSuchProcess, KeyError):
        return None


def _signal(folder: Path, process: psutil.Process, now: bool) -> None:
    try:
        if now:
            process.kill()
        elif sys.platform == "win32":
            os.kill(process.pid, signal.CTRL_BREAK_EVENT)
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return
    except (psutil.AccessDenied, OSError) as error:
        fix = "Use the account that started it, or on Windows --now: it goes on from its last checkpoint."
        raise RunError(
            f"run '{folder.name}', process {process.pid}", "must be yours to stop", str(error), fix
        ) from error


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def describe(folder: Path, stopped: Stopped) -> str:
    """One line on what came of it, and what to do next."""
    one, seconds = summarize(folder), f"{stopped.seconds:.1f} s"
    where = (
        f"epoch {one.epoch}" + (f" of {one.max_epochs}" if one.max_epochs else "") if one.epoch else "its first epoch"
    )
    again = f"It goes on with: medseg runs resume {folder.name}"
    if stopped.state == RUNNING:
        return f"It has not ended after {seconds} and was left alone: it may be saving still. --now kills it."
    if stopped.state == "finished":
        return f"It finished meanwhile, after {seconds}."
    if stopped.killed:
        return f"Killed in {where}; what came after its last checkpoint is lost. {again}"
    if stopped.state == INTERRUPTED:
        return f"Saved and stopped in {where}, after {seconds}. {again}"
    return f"It ended in {where} without saving (state '{stopped.state}'). {again}"
