"""Stop a run from outside: it saves and ends, or it is killed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from medseg.atomic import write_json
from medseg.errors import RunError, command_line
from medseg.runs.record import DIED, FINISHED, INTERRUPTED, RECORD, RUNNING, STOP, is_local, read_record, state_of
from medseg.runs.run import Run

_BY_FILE = os.name == "nt"  # a signal reaches only processes that share a console, which a detached run has not


@dataclass(frozen=True)
class Stopped:
    """The result of stopping a run.

    Args:
        state: the run's state; still `running` where it has not ended in time.
        seconds: how long it took.
        killed: True if it was killed, and so resumes from its last checkpoint.
    """

    state: str
    seconds: float
    killed: bool


def stop(
    folder: str | Path, timeout: float = 120.0, *, now: bool = False, waiting: Callable[[float], None] | None = None
) -> Stopped:
    """Ask a run to save and end (SIGTERM; on Windows a file, see `record.STOP`), and wait until it has.

    Args:
        folder: the run's folder.
        timeout: seconds to wait; then the run is left alone, perhaps still saving.
        now: kill it instead: what came after its last checkpoint is lost.
        waiting: called again and again with the seconds that have passed.

    Raises:
        RunError: it is not running, runs on another machine, or cannot be signalled.
    """
    folder = Path(folder)
    record = read_record(folder)
    _require_running(folder, record)
    start = time.monotonic()
    process = _process(record)
    if process is not None:
        _signal(folder, process, now)
    while process is not None and _lives(process):
        passed = time.monotonic() - start
        if passed > timeout:
            break
        if waiting is not None:
            waiting(passed)
        time.sleep(0.1)
    state = state_of(read_record(folder))
    if now and state == DIED:
        # A killed run cannot write its state, and must not be taken for one that crashed.
        write_json(folder / RECORD, {**read_record(folder), "state": INTERRUPTED, "error": None})
        state = INTERRUPTED
    return Stopped(state, time.monotonic() - start, now)


def _require_running(folder: Path, record: dict[str, Any]) -> None:
    state = state_of(record)
    name = f"run '{folder.name}'"
    if state != RUNNING:
        fix = (
            f"To resume it: {command_line('runs', 'resume', folder.name)}" if state not in (FINISHED, "unknown") else ""
        )
        raise RunError(name, f"it is not running, its state is '{state}'", fix=fix)
    if not is_local(record):
        raise RunError(name, f"it runs on another machine, {record['host']}", fix="Stop it there.")


def _process(record: dict[str, Any]) -> psutil.Process | None:
    """Return the process of a run that was alive a moment ago; None where it has ended since."""
    try:
        return psutil.Process(int(record["pid"]))
    except (psutil.NoSuchProcess, KeyError):
        return None


def _signal(folder: Path, process: psutil.Process, now: bool) -> None:
    try:
        if now:
            process.kill()
        elif _BY_FILE:
            (folder / STOP).touch()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return
    except (psutil.AccessDenied, OSError) as error:
        fix = "Use the account that started it."
        name = f"run '{folder.name}', process {process.pid}"
        raise RunError(name, "this account may not stop it", str(error), fix) from error


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def describe(folder: Path, stopped: Stopped) -> str:
    """Return a line on the result, and on what to do next."""
    run = Run(folder)
    seconds = f"{stopped.seconds:.1f} s"
    where = "its first epoch"
    if run.epoch:
        where = f"epoch {run.epoch}" + (f" of {run.max_epochs}" if run.max_epochs else "")
    fix = f"To resume it: {command_line('runs', 'resume', folder.name)}"
    if stopped.state == RUNNING:
        return f"It has not ended after {seconds} and was left alone: it may still be saving. --now kills it."
    if stopped.state == FINISHED:
        return f"It finished meanwhile, after {seconds}."
    if stopped.killed:
        return f"Killed in {where}; what came after its last checkpoint is lost. {fix}"
    if stopped.state == INTERRUPTED:
        return f"Saved and stopped in {where}, after {seconds}. {fix}"
    return f"It ended in {where} without saving (state '{stopped.state}'). {fix}"
