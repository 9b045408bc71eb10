"""The record of a run, `run.json`: its state, and the process that computes it."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from medseg.atomic import write_json
from medseg.errors import RunError

# The files in the folder of a run.
RECORD = "run.json"
METRICS_LOG = "metrics.jsonl"
HISTORY = "training_history.json"
LOG = "train.log"
CONSOLE = "console.log"
LOCK = ".lock"
STOP = ".stop"  # asks a run to save and end, on systems where a signal cannot
STOPPING = ".stopping"  # written at the first signal: a run that ends without a word after it was stopped

RUNNING = "running"
INTERRUPTED = "interrupted"
FINISHED = "finished"
FAILED = "failed"
DIED = "died"  # the record says `running`, but the process is gone
UNREADABLE = "unreadable"
RESUMABLE = 75  # exit code of a run that was stopped and can be resumed; EX_TEMPFAIL in sysexits.h

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # on Linux only


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, an empty one where the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def read_record(folder: str | Path) -> dict[str, Any]:
    """Return the content of `run.json`, an empty dictionary where there is none.

    Raises:
        RunError: the file is damaged.
    """
    path = Path(folder) / RECORD
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (OSError, ValueError, TypeError) as error:
        raise RunError(path, "the file is no JSON object", str(error)) from error


def write_record(folder: str | Path, record: Mapping[str, Any]) -> None:
    """Write `run.json`, whole or not at all, with the present time as the run's last sign of life."""
    write_json(Path(folder) / RECORD, {**record, "updated": time.strftime("%Y-%m-%dT%H:%M:%S%z")})


def this_process() -> dict[str, Any]:
    """Return the fields by which a record names this process, so that a later one with its number is not taken for it.

    `pid_ticks`, the seconds from the machine's start to the process's, stays the same when the clock is set;
    `pid_started`, in Unix seconds, does not. `boot` tells one start of the machine from another; None off Linux.
    """
    process = psutil.Process()
    created = process.create_time()
    return {
        "pid": process.pid,
        "pid_started": created,
        "pid_ticks": round(created - psutil.boot_time(), 2),
        "boot": _boot_id(),
        "host": platform.node(),
    }


def is_alive(record: Mapping[str, Any]) -> bool:
    """Return True if the process that a record names exists; a process on another machine is assumed to."""
    if record.get("host") != platform.node():
        return True
    boot = record.get("boot")
    ticks = record.get("pid_ticks")
    started = record.get("pid_started")
    current_boot = _boot_id()
    if boot is not None and current_boot is not None and boot != current_boot:
        return False
    try:
        process = psutil.Process(int(record.get("pid", -1)))
        # Process numbers are reused, so the start must match; the ticks do not move when the clock is set.
        if started is None:
            same = True
        elif boot is not None and boot == current_boot and ticks is not None:
            same = abs(process.create_time() - psutil.boot_time() - float(ticks)) < 2
        else:
            same = abs(process.create_time() - float(started)) < 2
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, ValueError):
        return False


def is_local(record: Mapping[str, Any]) -> bool:
    """Return True if the process that a record names ran on this machine."""
    return record.get("host") in (None, platform.node())


def state_of(record: Mapping[str, Any]) -> str:
    """Return the state in a record, or `died` where it says `running` and its process is gone.

    Example:
        >>> state_of({"state": "finished"})
        'finished'
    """
    state = str(record.get("state", "unknown"))
    return DIED if state == RUNNING and not is_alive(record) else state


def _boot_id() -> str | None:
    """Return the name that Linux gives to this start of the machine, None on other systems."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None
