"""What there is to say of runs, read from their folders: how far, how good, how long still."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from medseg.errors import RunError
from medseg.records import DIED, EPOCHS, FINISHED, RECORD, ROWS, RUNNING, find_run, find_runs, read_record, state_of

UNREADABLE = "unreadable"
SILENT_MINUTES = 10  # of a run on another machine: from then on it counts as left alone
_TAIL = 1 << 16


@dataclass(frozen=True)
class Summary:
    """One run in a line. What is not known is None; times are Unix seconds, durations seconds."""

    name: str
    folder: str
    bundle: str | None
    state: str
    epoch: int | None
    max_epochs: int | None
    iteration: int | None
    best_dice: float | None
    best_epoch: int | None
    seconds_left: float | None
    started: float | None
    heard: float | None
    pid: int | None
    host: str | None
    error: str | None


def summarize(folder: str | Path, now: float | None = None) -> Summary:
    """How a run stands, from its record and the end of its rows; a damaged folder is `unreadable` and no error.

    Args:
        folder: the run's folder.
        now: the time that the time left is counted from, Unix seconds.
    """
    folder, now = Path(folder), time.time() if now is None else now
    try:
        record = read_record(folder)
        state, error = standing(folder, record, now), record.get("error")
    except RunError as damaged:
        record, state, error = {}, UNREADABLE, str(damaged)
    rows = tail_rows(folder)
    epoch = _first(record.get("epoch"), *(row.get("epoch") for row in reversed(rows)))
    best = best_of(folder, record, rows)
    max_epochs = _max_epochs(folder, record, rows)
    return Summary(
        name=folder.name,
        folder=str(folder),
        bundle=record.get("bundle"),
        state=state,
        epoch=_later(epoch, rows),
        max_epochs=max_epochs,
        iteration=_first(*(row.get("iteration") for row in reversed(rows)), record.get("iteration")),
        best_dice=best[0],
        best_epoch=best[1],
        seconds_left=seconds_left(rows, max_epochs, now) if state == RUNNING else None,
        started=_unix(record.get("started")),
        heard=_heard(record, rows),
        pid=record.get("pid"),
        host=record.get("host"),
        error=error,
    )


def standing(folder: str | Path, record: Mapping[str, Any] | None = None, now: float | None = None) -> str:
    """How a run stands: `state_of` its record, but `died` where another machine fell silent over it.

    A machine that vanished leaves `running` behind for good, and nobody here can look for its process.

    Args:
        folder: the run's folder.
        record: its record. Default: read anew.
        now: the time that the silence is counted from, Unix seconds.

    Raises:
        RunError: its record cannot be read.
    """
    record = read_record(folder) if record is None else record
    state = state_of(record)
    if state != RUNNING or is_here(record):
        return state
    silent = (time.time() if now is None else now) - (_heard(record, tail_rows(folder)) or 0.0)
    return DIED if silent >= 60 * SILENT_MINUTES else state


def summaries(root: str | Path) -> list[Summary]:
    """All runs under `root`, the latest first."""
    now = time.time()
    return [summarize(folder, now) for folder in reversed(find_runs(root))]


def choose(name: str | Path | None, root: str | Path) -> Path:
    """The run that is meant: by folder, name or part of it; without a name the only running one, else the latest.

    Raises:
        RunError: there is none of that name, several, or none at all.
    """
    if name is not None:
        return find_run(name, root)
    runs = _all(root)
    running = [run for run in runs if _state(run) == RUNNING]
    return running[0] if len(running) == 1 else runs[-1]


def choose_latest(name: str | Path | None, root: str | Path) -> Path:
    """The run that is meant: without a name, the latest, whether it runs or not.

    Raises:
        RunError: see `choose`.
    """
    return _all(root)[-1] if name is None else find_run(name, root)


def choose_resumable(name: str | Path | None, root: str | Path) -> Path:
    """The run that is meant to go on: without a name, the latest that neither runs nor has finished.

    Where there is no such run, it is the latest that has finished. A prediction that was recorded is none of them.

    Raises:
        RunError: see `choose`; or all of them are running.
    """
    if name is not None:
        return find_run(name, root)
    states = {run: _state(run) for run in _all(root) if read_json(run / RECORD).get("job_type") != "inference"}
    stopped = [run for run, state in states.items() if state not in (RUNNING, FINISHED)]
    finished = [run for run, state in states.items() if state == FINISHED]
    if not stopped and not finished:
        names = ", ".join(run.name for run in list(states)[-5:])
        found = f"running ones alone: {names}" if names else "none"
        raise RunError(root, "must hold a run to go on with", found)
    return (stopped or finished)[-1]


def choose_running(name: str | Path | None, root: str | Path) -> Path:
    """The run that is meant, where it must be a running one: without a name, the only one that is.

    Raises:
        RunError: none is running, or several are.
    """
    if name is not None:
        return find_run(name, root)
    running = [run for run in find_runs(root) if _state(run) == RUNNING]
    if len(running) == 1:
        return running[0]
    found = f"{len(running)}: {', '.join(run.name for run in running)}" if running else "none"
    raise RunError(root, "must hold one running run, or the run must be named", found)


def tail_rows(folder: str | Path, size: int = _TAIL) -> list[dict[str, Any]]:
    """The rows in the last `size` bytes of `metrics.jsonl`, oldest first; lines that are no row are left out."""
    try:
        with (Path(folder) / ROWS).open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(0, end - size))
            lines = file.read().split(b"\n")
    except OSError:
        return []
    rows = []
    for line in lines[1 if end > size else 0 : -1]:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def seconds_left(rows: Sequence[Mapping[str, Any]], max_epochs: int | None, now: float) -> float | None:
    """How long a run will still take: what its last row says of it, less its age; else from the pace of epochs.

    >>> seconds_left([{"kind": "batch", "time": 100.0, "seconds_left": 60.0}], None, 110.0)
    50.0
    """
    for row in reversed(rows):
        if row.get("seconds_left") is not None and row.get("time") is not None:
            return max(0.0, float(row["seconds_left"]) - (now - float(row["time"])))
    epochs = [row for row in rows if row.get("kind") == "epoch" and row.get("time") and row.get("epoch")]
    if not epochs or not max_epochs:
        return None
    last = epochs[-1]
    before = [row for row in epochs[-6:-1] if row["epoch"] < last["epoch"]]
    if before:
        pace = (last["time"] - before[0]["time"]) / (last["epoch"] - before[0]["epoch"])
    elif last.get("train_seconds"):
        pace = float(last["train_seconds"])
    else:
        return None
    return max(0.0, float(pace * (max_epochs - last["epoch"]) - (now - last["time"])))


def best_of(
    folder: Path, record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> tuple[float | None, int | None]:
    """The best mean Dice so far and its epoch."""
    for row in reversed(rows):
        if row.get("kind") == "validation" and row.get("best_dice") is not None:
            return row["best_dice"], row.get("best_epoch")
    if record.get("best_dice") is not None:
        return record["best_dice"], record.get("best_epoch")
    history = read_json(folder / EPOCHS)
    return history.get("best_dice"), history.get("best_epoch")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def is_here(record: Mapping[str, Any]) -> bool:
    """Whether the process that a record names was one of this machine."""
    return record.get("host") in (None, platform.node())


def progress(folder: str | Path) -> int:
    """The last iteration that a run has recorded; 0 before the first."""
    found = (row.get("iteration") for row in reversed(tail_rows(folder)))
    return int(_first(*found, 0) or 0)


def _all(root: str | Path) -> list[Path]:
    runs = find_runs(root)
    if not runs:
        fix = "Say where they are, with --runs DIR or MEDSEG_RUNS."
        raise RunError(root, "must hold a run", "none", fix)
    return runs


def _state(folder: Path) -> str:
    try:
        return standing(folder)
    except RunError:
        return UNREADABLE


def _heard(record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The last sign of life: what was written down, not the times of the files, which a copy of the folder has anew."""
    signs = (_unix(record.get("updated")), _first(*(row.get("time") for row in reversed(rows))))
    return max([sign for sign in signs if sign is not None], default=None)


def _max_epochs(folder: Path, record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> int | None:
    found = _first(record.get("max_epochs"), *(row.get("max_epochs") for row in reversed(rows)))
    if found is None:
        found = read_json(folder / "configs" / "train.json").get("max_epochs")
    return found if isinstance(found, int) else None


def _later(epoch: Any, rows: Sequence[Mapping[str, Any]]) -> int | None:
    """Rows are newer than the record within an epoch."""
    return max(
        [one for one in (epoch, *(row.get("epoch") for row in rows[-20:])) if isinstance(one, int)], default=None
    )


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _unix(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp() if text else None
    except ValueError:
        return None
