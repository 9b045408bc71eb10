"""What the folder of a run says of it: `run.json` and `metrics.jsonl`, read and written without torch."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from medseg.errors import RunError, did_you_mean

RECORD, LOCK, LOG, CONSOLE = "run.json", ".lock", "train.log", "console.log"
ROWS, EPOCHS = "metrics.jsonl", "training_history.json"
RUNNING, INTERRUPTED, FINISHED, FAILED = "running", "interrupted", "finished", "failed"
STOPPING = ".stopping"  # left at the first signal: a run that is gone then was stopped, and did not die
DIED = "died"  # said of a run whose record says `running` and whose process is gone
_BOOT = Path("/proc/sys/kernel/random/boot_id")  # Linux alone
RESUMABLE = 75  # exit code of a run that was stopped and can be gone on with; EX_TEMPFAIL in sysexits.h


def read_record(folder: str | Path) -> dict[str, Any]:
    """What `run.json` says; empty where there is none.

    Raises:
        RunError: it cannot be read.
    """
    path = Path(folder) / RECORD
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise RunError(path, "must be a JSON object", str(error)) from error


def this_process() -> dict[str, Any]:
    """How a record names the process that is at it, so that `state` can tell it from a later one of the same number.

    `pid_ticks`, seconds from the machine's start to its own, stays the same when the clock is set; `pid_started`, Unix
    seconds, does not. `boot` tells one start of the machine from another; None where there is no such word.
    """
    process = psutil.Process()
    began = process.create_time()
    ticks = round(began - psutil.boot_time(), 2)
    return {"pid": process.pid, "pid_started": began, "pid_ticks": ticks, "boot": _boot(), "host": platform.node()}


def is_alive(record: Mapping[str, Any]) -> bool:
    """Whether the process that a record names is there; a process on another machine is taken at its word."""
    if record.get("host") != platform.node():
        return True
    boot, ticks, began = (record.get(key) for key in ("boot", "pid_ticks", "pid_started"))
    current = _boot()
    if boot is not None and current is not None and boot != current:
        return False
    try:
        process = psutil.Process(int(record.get("pid", -1)))
        if began is None:
            same = True
        elif boot is not None and boot == current and ticks is not None:
            same = abs(process.create_time() - psutil.boot_time() - float(ticks)) < 2
        else:
            same = abs(process.create_time() - float(began)) < 2
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, ValueError):
        return False


def _boot() -> str | None:
    """What names this start of the machine; None where the system has no such name."""
    try:
        return _BOOT.read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def state_of(record: Mapping[str, Any]) -> str:
    """How a run stands: what its record says, or `died` where it says `running` and nobody is there.

    >>> state_of({"state": "finished"})
    'finished'
    """
    said = str(record.get("state", "unknown"))
    return DIED if said == RUNNING and not is_alive(record) else said


def append_row(folder: str | Path, row: Mapping[str, Any]) -> None:
    """Append one row to `metrics.jsonl`; after a line that a kill cut short, on a line of its own.

    Raises:
        ValueError: NaN or infinity, which are not JSON.
        OSError: the file cannot be written.
    """
    text = json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n"
    with (Path(folder) / ROWS).open("ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            text = text if file.read(1) == b"\n" else "\n" + text
        file.write(text.encode())


def read_rows(folder: str | Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of `metrics.jsonl` with their numbers, from line `start` on.

    A row's number is its line's, whatever is wrong with lines before it: so it means the same row for good. A line
    that a kill cut short is left out, and so is the last one as long as it has no end.
    """
    path = Path(folder) / ROWS
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file):
            row = parse_row(line) if number >= start else None
            if row is not None:
                yield number, row


def parse_row(line: bytes) -> dict[str, Any] | None:
    r"""The row that a line of `metrics.jsonl` holds; None where it was cut short or is none.

    >>> parse_row(b'{"kind": "batch"}\n'), parse_row(b'{"kind": "ba')
    ({'kind': 'batch'}, None)
    """
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def find_runs(root: str | Path) -> list[Path]:
    """The folders of all runs under `root`, oldest first; hidden folders are passed over."""
    found = {path.parent for depth in ("*", "*/*") for path in Path(root).glob(f"{depth}/{RECORD}")}
    hidden = {run for run in found if any(part.startswith(".") for part in run.relative_to(root).parts)}
    return sorted(found - hidden, key=lambda folder: folder.name)


def find_run(name: str | Path, root: str | Path) -> Path:
    """A run by its folder, by the folder's name, or by a part of that name which only one run has.

    Raises:
        RunError: there is none, or there are several.
    """
    given = Path(name)
    if (given / RECORD).is_file():
        return given
    runs = find_runs(root)
    exact = [run for run in runs if run.name == str(name)]
    found = exact or [run for run in runs if str(name) in run.name]
    if len(found) == 1:
        return found[0]
    names = [run.name for run in found or runs]
    if found:
        raise RunError(f"run '{name}'", "must mean one run", f"{len(found)}: {', '.join(names[-5:])}")
    fix = did_you_mean(str(name), names, f"The latest are: {', '.join(names[-5:]) or 'none'}.")
    raise RunError(f"run '{name}'", f"must be the folder or the name of a run under {root}", "none", fix)
