"""The report of a run as one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medseg.atomic import write_text
from medseg.report.charts import histogram
from medseg.report.curves import spark
from medseg.report.page import render
from medseg.report.run_charts import curves, first_time, machine, spreads
from medseg.report.run_previews import previews
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
_SPLIT = {"train": "training", "val": "validation", "test": "test"}
_MAX_WARNINGS = 500
_POOR_DICE = 0.5
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
    state = run.state
    name = run.folder.resolve().name
    warnings = run.rows_of("warning")
    return render(
        "run",
        title=f"Run: {name}",
        name=name,
        bundle=record.get("bundle", "unknown bundle"),
        label=record.get("name"),
        verdict=_VERDICTS.get(state, ("wait", "State unknown")),
        error=record.get("error"),
        facts=[(key, value) for key, value in _facts(run) if value],
        git=_git(record.get("git")),
        tiles=_tiles(run, state),
        notes=run.notes,
        curves=curves(run),
        scores=_scores(run),
        unvalidated=bool(run.rows or record),
        previews=previews(run),
        machine=machine(run),
        spreads=spreads(run),
        warnings=[_warning(row, first_time(run)) for row in warnings[-_MAX_WARNINGS:]],
        omitted=max(0, len(warnings) - _MAX_WARNINGS),
        config=run.config,
        recipe=str(run.bundle or ""),
        recipe_found=bool(run.bundle) and find_recipe(str(run.bundle)) is not None,
        changes=[
            (key, *map(_as_text, reversed(values)))
            for key, values in (unlike_recipe(run) if run.config else {}).items()
        ],
        as_text=_as_text,
        is_branch=_is_branch,
        origin=[(key, value) for key, value in _origin(run) if value],
        footer=f"Written by medseg report, {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}.",
    )


def _tiles(run: Run, state: str) -> list[tuple[str, str, str]]:
    """Return the value, the name and a note of each tile."""
    means = _values(run, "validation", "mean_dice")
    losses = _values(run, "epoch", "loss")
    speeds = _values(run, "epoch", "samples_per_second")
    epochs = [int(epoch) for kind in ("epoch", "validation") for epoch in _values(run, kind, "epoch")]
    resumed = sum(bool(row.get("resumed")) for row in run.rows_of("begin"))
    seconds = _seconds_worked(run)
    tiles = [
        (f"{run.best.dice:.4f}", "Best mean Dice", f"in epoch {run.best.epoch}")
        if run.best
        else (_DASH, "Best mean Dice", ""),
        (f"{means[-1]:.4f}" if means else _DASH, "Last mean Dice", ""),
        (number(max([0, *epochs])), "Epochs done", f"of {number(run.max_epochs)}" if run.max_epochs else ""),
        (
            _DASH if seconds is None else _unbroken(duration(seconds)),
            "Time at work",
            "" if not resumed else "resumed once" if resumed == 1 else f"resumed {resumed} times",
        ),
    ]
    left = _seconds_left(run) if state == RUNNING else None
    if left is not None:
        tiles.append((_unbroken(duration(left)), "Time left", ""))
    tiles.append((f"{losses[-1]:.4g}" if losses else _DASH, "Loss, last epoch", ""))
    if speeds:
        tiles.append((number(speeds[-1]), "Samples per second", ""))
    return tiles


def _values(run: Run, kind: str, key: str) -> list[float]:
    """Return the numbers in the rows of one kind."""
    return [value for row in run.rows_of(kind) if (value := number_of(row.get(key))) is not None]


def _unbroken(text: str) -> str:
    """Return a duration whose numbers are never parted from their units."""
    words = text.split(" ")
    return " ".join("\u00a0".join(pair) for pair in zip(words[::2], words[1::2], strict=False))


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


def _seconds_left(run: Run) -> float | None:
    rows = [row for kind in ("batch", "epoch") for row in run.rows_of(kind)[-1:]]
    rows.sort(key=lambda row: number_of(row.get("time")) or 0.0)
    return number_of(rows[-1].get("seconds_left")) if rows else None


def _facts(run: Run) -> list[tuple[str, str]]:
    record = run.record
    devices = [str(row["device"]) for row in run.rows_of("begin") if row.get("device")]
    cases = record.get("cases")
    counts = (
        f"{len(ids)} {_SPLIT.get(part, part)}" for part, ids in cases.items() if hasattr(ids, "__len__")
    ) if isinstance(cases, Mapping) else ()  # fmt: skip
    data = record.get("data")
    fingerprint = data.get("fingerprint", data) if isinstance(data, Mapping) else data
    return [
        ("Started", _started(record.get("started"), first_time(run))),
        ("Device", devices[-1] if devices else str(record.get("device") or "")),
        ("Cases", ", ".join(counts)),
        ("Data", str(fingerprint)[:16] if fingerprint else ""),
    ]


def _started(text: object, first: float | None) -> str:
    """Return the time in the zone in which it was recorded, or that of the first row."""
    try:
        return f"{datetime.fromisoformat(str(text)):%Y-%m-%d %H:%M %z}"
    except ValueError:
        return "" if first is None else f"{datetime.fromtimestamp(first, UTC):%Y-%m-%d %H:%M} UTC"


def _git(git: object) -> tuple[str, bool] | None:
    """Return the commit, and whether there were changes beside it."""
    if not isinstance(git, Mapping) or not git.get("commit"):
        return None
    return str(git["commit"])[:12], bool(git.get("dirty"))


def _scores(run: Run) -> dict[str, Any] | None:
    """Return the table of structures, the worst first: last and best Dice of each and its curve; None without any."""
    series = by_structure(run, "dice")
    if not series:
        return None
    f1 = by_structure(run, "f1")
    epochs = [number_of(row.get("epoch")) for row in run.rows_of("validation")]
    order = sorted(series, key=lambda name: (series[name][-1] is None, series[name][-1] or 0.0, name))
    last = [value for name in order if (value := series[name][-1]) is not None]
    counts = (
        ("all", "All", len(order)),
        ("poor", "Under 0.5", sum(value < _POOR_DICE for value in last)),
        ("zero", "0", sum(value == 0 for value in last)),
        ("none", "No value", len(order) - len(last)),
    )
    chart = histogram(last, "", "Dice of the structures", ("structure", "structures"))
    return {
        "rows": [_score_row(name, series[name], f1.get(name), epochs) for name in order],
        "with_f1": bool(f1),
        "chips": [chip for chip in counts if chip[2]],
        "histogram": chart if len(last) > 4 else "",
    }


def by_structure(run: Run, key: str) -> dict[str, list[float | None]]:
    """Return a value for each validation by structure, in the label map's order; None where it had none."""
    rows = [scores if isinstance(scores := row.get(key), Mapping) else {} for row in run.rows_of("validation")]
    present = dict.fromkeys(str(name) for row in rows for name in row)
    names = [*(name for name in run.structures if name in present)]
    names += [name for name in present if name not in run.structures]
    return {name: [number_of(row.get(name)) for row in rows] for name in names}


def _score_row(
    name: str, values: Sequence[float | None], f1: Sequence[float | None] | None, epochs: Sequence[float | None]
) -> dict[str, Any]:
    scored = [(value, -index) for index, value in enumerate(values) if value is not None]
    best, back = max(scored) if scored else (None, 0)
    last = values[-1]
    kinds = ["none"] if last is None else ["poor"] * (last < _POOR_DICE) + ["zero"] * (last == 0)
    return {
        "name": name,
        "kinds": " ".join(kinds),
        "last": last,
        "f1": f1[-1] if f1 else None,
        "best": best,
        "epoch": epochs[-back] if scored else None,
        "svg": spark(values, f"Dice of {name} over epochs"),
    }


def _warning(row: Mapping[str, Any], start: float | None) -> dict[str, Any]:
    time = number_of(row.get("time"))
    return {
        "level": "error" if row.get("level") == "error" else "warning",
        "after": _unbroken(duration(time - start)) if time is not None and start is not None else "",
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


def _origin(run: Run) -> list[tuple[str, object]]:
    record = run.record
    versions = record.get("versions")
    command = record.get("command")
    return [
        *(versions.items() if isinstance(versions, Mapping) else ()),
        ("command", " ".join(map(str, command)) if isinstance(command, list) else command),
        ("working directory", record.get("working_directory")),
        ("data set", record.get("dataset")),
        ("data fingerprint", record.get("data")),
        ("git", json.dumps(record["git"]) if record.get("git") else None),
        ("identity", record.get("identity")),
        ("host", record.get("host")),
        ("folder", str(run.folder.resolve())),
    ]
