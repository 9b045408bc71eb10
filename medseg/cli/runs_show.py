"""Print runs: a list, one run, runs side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medseg.cli.tables import console, duration, number, sparkline, table
from medseg.errors import printable
from medseg.runs.compare import speed, unlike_recipe
from medseg.runs.metrics_log import Row
from medseg.runs.record import CONSOLE, LOG, METRICS_LOG, RUNNING, read_json
from medseg.runs.run import Run

if TYPE_CHECKING:
    from rich.text import Text

_COLORS = {
    "running": "green",
    "finished": "blue",
    "interrupted": "yellow",
    "failed": "red",
    "died": "red",
    "unreadable": "red",
}
_MAX_STRUCTURES = 5  # at each end of the list
_MAX_WARNINGS = 5
_MAX_VALUE = 48  # characters of a setting
_FILES = (LOG, CONSOLE, METRICS_LOG, "previews", "checkpoints", "models/model.pt", "report.html")


def show_list(runs: Sequence[Run], root: Path, total: int) -> None:
    """Print a line for each run.

    Args:
        runs: those to print.
        root: their folder.
        total: how many there are.
    """
    if not runs:
        click.echo(f"No runs in {root}. Start one with: medseg train unet2d --with demo")
        return
    rows: list[list[str | Text]] = []
    for run in runs:
        cells = [_epochs(run), _best(run), duration(run.seconds_left), _start(run)]
        rows.append([run.name, str(run.bundle or "-"), _state(run.state), *cells])
    columns = ["run", "bundle", "state", "epoch", "best Dice", "time left", "started"]
    console().print(table(f"Runs in {root}", columns, rows, left=(0, 1, 2)))
    if total > len(runs):
        click.echo(f"and {total - len(runs)} older: medseg runs --all")


def show_run(run: Run) -> None:
    """Print facts, curves, Dice by structure, warnings, settings and files of a run."""
    from rich.text import Text

    screen = console()
    plain = not (screen.encoding or "").lower().startswith("utf")
    screen.print(Text.assemble((printable(run.name), "bold"), "  ", _state(run.state)))
    for key, text in _facts(run).items():
        screen.print(Text(f"  {key:<11} {printable(text, len(text))}"), soft_wrap=True)
    for title, values in _curves(run):
        numbers = [value for value in values if value is not None]
        if numbers:
            curve = sparkline(values, plain=plain)
            screen.print(Text(f"  {title:<11} {curve}  {number(numbers[0])} to {number(numbers[-1])}"), soft_wrap=True)
    _show_structures(run)
    _show_warnings(run)
    changed = unlike_recipe(run)
    if changed:
        cells = [[key, _short(values[1]), _short(values[0])] for key, values in changed.items()]
        screen.print(table("Settings unlike the recipe", ["", "this run", "recipe"], cells, left=(0, 1, 2)))
    files = [name for name in _FILES if (run.folder / name).exists()]
    screen.print(Text(f"Folder: {run.folder.resolve()}"), soft_wrap=True)
    screen.print(Text(f"  {', '.join(files)}"), soft_wrap=True)


def _facts(run: Run) -> dict[str, str]:
    record = run.record
    facts = {"bundle": str(run.bundle), "epoch": _epochs(run)}
    if run.iteration is not None:
        facts["epoch"] += f", iteration {run.iteration}"
    if run.started is not None:
        facts["started"] = f"{datetime.fromtimestamp(run.started):%Y-%m-%d %H:%M}"
    if run.last_sign is not None:
        age = duration(max(0.0, time.time() - run.last_sign))
        facts["last sign"] = f"{age} ago, process {record.get('pid')} on {record.get('host')}"
    if run.state == RUNNING:
        facts["time left"] = duration(run.seconds_left)
    facts["best Dice"] = _best(run)
    if run.error:
        facts["error"] = run.error
    counts = ", ".join(f"{len(ids)} {subset}" for subset, ids in (record.get("cases") or {}).items() if ids)
    facts["data"] = f"{record.get('dataset')}" + (f" ({counts})" if counts else "")
    if record.get("device"):
        facts["device"] = str(record["device"])
    samples, seconds = speed(run.rows_of("epoch"))
    facts["speed"] = f"{number(samples, 1)} samples/s, {duration(seconds)} an epoch"
    wait = next((row["data_wait"] for row in reversed(run.tail) if row.get("data_wait") is not None), None)
    if wait is not None:
        facts["speed"] += f", {wait:.0%} of it waiting for data"
    machine = run.rows_of("system")
    if machine:
        facts["machine"] = _machine(machine[-1])
    monitor = read_json(run.folder / "monitor" / "state.json")
    if monitor:
        facts["page"] = str(monitor.get("url") or f"none ({monitor.get('backend')}, {monitor.get('mode')})")
    watch = read_json(run.folder / "watch.json")
    if watch:
        facts["watched"] = f"{watch.get('restarts')} restarts" + (", no longer" if watch.get("ended") else "")
    return facts


def _machine(row: Row) -> str:
    parts = []
    for index, gpu in enumerate(row.get("gpu") or []):
        used = _gigabytes(gpu.get("memory_used"))
        total = _gigabytes(gpu.get("memory_total"))
        parts.append(f"GPU {index} {_percent(gpu.get('load'))}, {used} of {total} GB")
    parts.append(f"CPU {_percent(row.get('cpu'))}")
    names = {"ram_process": "RAM of this run", "ram_free": "RAM free", "disk_free": "disk free"}
    parts += [f"{name} {_gigabytes(row[key])} GB" for key, name in names.items() if row.get(key) is not None]
    return ", ".join(parts)


def _curves(run: Run) -> list[tuple[str, list[float | None]]]:
    """Return loss by epoch, by batch while there is no second epoch, and mean Dice by validation."""
    epochs = run.rows_of("epoch")
    losses = [row.get("loss") for row in (epochs if len(epochs) > 1 else run.rows_of("batch"))]
    return [("loss", losses), ("Dice", [row.get("mean_dice") for row in run.rows_of("validation")])]


def _show_structures(run: Run) -> None:
    best = run.best
    scores = {name: value for name, value in best.by_structure.items() if value is not None} if best else {}
    if best is None or not scores:
        return
    order = sorted(scores, key=lambda name: float(scores[name]))
    shown = order if len(order) <= 2 * _MAX_STRUCTURES else [*order[:_MAX_STRUCTURES], *order[-_MAX_STRUCTURES:]]
    cells = [[name, number(scores[name])] for name in shown]
    if len(order) > len(shown):
        cells.insert(_MAX_STRUCTURES, [f"... {len(order) - len(shown)} more", ""])
    console().print(table(f"Dice by structure, epoch {best.epoch}, worst first", ["", "Dice"], cells))


def _show_warnings(run: Run) -> None:
    from rich.text import Text

    for row in run.rows_of("warning")[-_MAX_WARNINGS:]:
        epoch = f" (epoch {row['epoch']})" if row.get("epoch") is not None else ""
        color = "red" if row.get("level") == "error" else "yellow"
        text = ": ".join(str(row[key]) for key in ("title", "text") if row.get(key))
        level = str(row.get("level", "warning")).capitalize()
        console().print(Text(f"{level}{epoch}: {printable(text, len(text))}", style=color))


def show_comparison(comparison: Mapping[str, Any]) -> None:
    """Print runs side by side, a column each.

    Args:
        comparison: see `medseg.runs.compare.compare`.
    """
    runs: Sequence[Run] = comparison["runs"]
    screen = console()
    names = [str(index) for index in range(1, len(runs) + 1)]
    for name, run in zip(names, runs, strict=True):
        screen.print(f"{name}: {printable(run.name)} ({printable(str(run.bundle))})", markup=False, soft_wrap=True)
    facts: list[list[str | Text]] = [
        ["state", *(_state(run.state) for run in runs)],
        ["epoch", *(_epochs(run) for run in runs)],
        ["best mean Dice", *(_best(run) for run in runs)],
        ["samples/s", *(number(value, 1) for value in comparison["samples_per_second"])],
        ["time an epoch", *(duration(value) for value in comparison["epoch_seconds"])],
    ]
    screen.print(table("", ["", *names], facts))
    if comparison["settings"]:
        cells = [[key, *(_short(value) for value in values)] for key, values in comparison["settings"].items()]
        screen.print(table("Settings that differ", ["", *names], cells))
    else:
        screen.print("The settings are the same.", markup=False)
    if comparison["dice"]:
        cells = [[key, *(number(value) for value in values)] for key, values in sorted(comparison["dice"].items())]
        screen.print(table("Dice by structure, best epoch of each", ["", *names], cells))


def _state(state: str) -> Text:
    from rich.text import Text

    return Text(state, style=_COLORS.get(state, ""))


def _epochs(run: Run) -> str:
    done = "-" if run.epoch is None else str(run.epoch)
    return f"{done}/{run.max_epochs}" if run.max_epochs else done


def _best(run: Run) -> str:
    if run.best is None:
        return "-"
    return number(run.best.dice) + (f" (epoch {run.best.epoch})" if run.best.epoch else "")


def _start(run: Run) -> str:
    return "-" if run.started is None else f"{datetime.fromtimestamp(run.started):%d %b %H:%M}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 3]}..."


def _gigabytes(count: float | None) -> str:
    return "-" if count is None else f"{count / 2**30:.1f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
