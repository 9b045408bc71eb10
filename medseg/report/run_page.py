"""The report of a run as one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medseg.atomic import write_text
from medseg.report.page import render
from medseg.report.run_sections import curves, first_time, machine, previews, score_table, spreads
from medseg.runs import Run
from medseg.runs.compare import unlike_recipe
from medseg.runs.metrics_log import number_of
from medseg.runs.record import DIED, FAILED, FINISHED, INTERRUPTED, RUNNING
from medseg.search_path import find_recipe
from medseg.units import duration, number

_VERDICTS = {
    FINISHED: ("good", "Finished"),
    RUNNING: ("busy", "Running"),
    INTERRUPTED: ("wait", "Interrupted: the same command resumes it"),
    FAILED: ("bad", "Failed"),
    DIED: ("bad", "Died: its process is gone; the same command resumes it"),
}
_MAX_WARNINGS = 500
_DASH = "\u2013"


def save_run_page(path: str | Path, run: Run) -> Path:
    """Write the report of a run as one HTML page.

    Args:
        path: the `.html` file.
        run: the run; its settings are compared with its bundle's recipe, if that is on this machine.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(path, run_page(run))
    return Path(path)


def run_page(run: Run) -> str:
    """Return the HTML of `save_run_page`."""
    record = run.record
    warnings = run.rows_of("warning")
    devices = [row["device"] for row in run.rows_of("begin") if row.get("device")]
    changes = unlike_recipe(run) if run.config else {}
    return render(
        "run",
        run=run,
        record=record,
        name=run.folder.resolve().name,
        verdict=_VERDICTS.get(run.state, ("wait", "State unknown")),
        started=_started(record.get("started"), first_time(run)),
        device=devices[-1] if devices else record.get("device"),
        tiles=_tiles(run),
        curves=curves(run),
        scores=score_table(run),
        previews=previews(run),
        machine=machine(run),
        spreads=spreads(run),
        warnings=[_warning(row, first_time(run)) for row in warnings[-_MAX_WARNINGS:]],
        omitted=max(0, len(warnings) - _MAX_WARNINGS),
        recipe_found=bool(run.bundle) and find_recipe(str(run.bundle)) is not None,
        changes=[(key, *map(_as_text, reversed(values))) for key, values in changes.items()],
        as_text=_as_text,
        is_branch=_is_branch,
        footer=f"Written by medseg report, {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}.",
    )


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    """Return the value, the name and a note of each tile."""
    means = _values(run, "validation", "mean_dice")
    losses = _values(run, "epoch", "loss")
    speeds = _values(run, "epoch", "samples_per_second")
    epochs = [*_values(run, "epoch", "epoch"), *_values(run, "validation", "epoch")]
    resumed = sum(bool(row.get("resumed")) for row in run.rows_of("begin"))
    times = "" if not resumed else "resumed once" if resumed == 1 else f"resumed {resumed} times"
    seconds = _seconds_worked(run)
    best = run.best
    tiles = [
        (f"{best.dice:.4f}" if best else _DASH, "Best mean Dice", f"in epoch {best.epoch}" if best else ""),
        (f"{means[-1]:.4f}" if means else _DASH, "Last mean Dice", ""),
        (number(int(max([0, *epochs]))), "Epochs done", f"of {number(run.max_epochs)}" if run.max_epochs else ""),
        (_DASH if seconds is None else duration(seconds), "Time at work", times),
    ]
    if run.seconds_left is not None:
        tiles.append((duration(run.seconds_left), "Time left", ""))
    tiles.append((f"{losses[-1]:.4g}" if losses else _DASH, "Loss, last epoch", ""))
    if speeds:
        tiles.append((number(speeds[-1]), "Samples per second", ""))
    return tiles


def _values(run: Run, kind: str, key: str) -> list[float]:
    """Return the numbers in the rows of one kind."""
    return [value for row in run.rows_of(kind) if (value := number_of(row.get(key))) is not None]


def _seconds_worked(run: Run) -> float | None:
    """Return the seconds from each start to the last row before the next one, pauses left out; None without times."""
    rows = sorted(
        (index, kind, time)
        for kind, numbered in run.rows.items()
        for index, row in numbered
        if (time := number_of(row.get("time"))) is not None
    )
    if not rows:
        return None
    total = 0.0
    begun = latest = rows[0][2]
    for _, kind, time in rows:
        if kind == "begin":
            total += latest - begun
            begun = time
        latest = time
    total += latest - begun
    if any(kind == "begin" for _, kind, _ in rows):
        return total
    return max(total, latest - run.started) if run.started is not None else total


def _started(text: object, first: float | None) -> str:
    """Return the time in the zone in which it was recorded, or that of the first row."""
    try:
        return f"{datetime.fromisoformat(str(text)):%Y-%m-%d %H:%M %z}"
    except ValueError:
        return "" if first is None else f"{datetime.fromtimestamp(first, UTC):%Y-%m-%d %H:%M} UTC"


def _warning(row: Mapping[str, Any], start: float | None) -> dict[str, Any]:
    time = number_of(row.get("time"))
    return {
        "level": "error" if row.get("level") == "error" else "warning",
        "after": duration(time - start) if time is not None and start is not None else "",
        "epoch": number_of(row.get("epoch")),
        "title": row.get("title", ""),
        "text": row.get("text", ""),
    }


def _as_text(value: Any) -> str:
    """Return a setting as a person would write it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_branch(value: Any) -> bool:
    """Return whether a setting is shown as a part of the tree that opens."""
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)
