"""How `medseg runs` draws a list of runs, one run, and runs side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medseg.cli.tables import console, duration, number, sparkline, table
from medseg.findings import printable
from medseg.records import CONSOLE, LOG, RUNNING, read_record, read_rows
from medseg.runs.comparing import best_validation, speed, unlike_recipe
from medseg.runs.runs import Summary, read_json, summarize

if TYPE_CHECKING:
    from rich.text import Text

_COLOURS = {
    "running": "green",
    "finished": "blue",
    "interrupted": "yellow",
    "failed": "red",
    "died": "red",
    "unreadable": "red",
}
_SHOWN, _VALUE = 5, 48
_FILES = {
    "log": LOG,
    "console": CONSOLE,
    "rows": "metrics.jsonl",
    "pictures": "previews",
    "checkpoints": "checkpoints",
    "weights": "models/model.pt",
    "report": "report.html",
}


def show_list(found: Sequence[Summary], root: Path, total: int) -> None:
    """A line for each run."""
    if not found:
        click.echo(f"No runs in {root}. Start one with: medseg train unet2d --with demo")
        return
    rows: list[list[str | Text]] = []
    for one in found:
        cells = [_epochs(one), _best(one), duration(one.seconds_left), _when(one)]
        rows.append([one.name, str(one.bundle or "-"), _state(one.state), *cells])
    columns = ["run", "bundle", "state", "epoch", "best Dice", "time left", "started"]
    console().print(table(f"Runs in {root}", columns, rows, left=(0, 1, 2)))
    if total > len(found):
        click.echo(f"and {total - len(found)} older: medseg runs --all")


def show_run(folder: Path) -> None:
    """Facts, curves, Dice by structure, warnings, settings and files of a run."""
    one, record = summarize(folder), read_record(folder)
    rows = [row for _, row in read_rows(folder)]
    screen = console()
    plain = not (screen.encoding or "").lower().startswith("utf")
    from rich.text import Text

    screen.print(Text.assemble((printable(one.name), "bold"), "  ", _state(one.state)))
    facts = _facts(one, record, rows)
    for key, text in facts.items():
        screen.print(Text(f"  {key:<11} {printable(text, len(text))}"), soft_wrap=True)
    for title, values, digits in _curves(rows):
        known = [value for value in values if value is not None]
        if known:
            curve = sparkline(values, plain=plain)
            ends = f"{number(known[0], digits)} to {number(known[-1], digits)}"
            screen.print(Text(f"  {title:<11} {curve}  {ends}"), soft_wrap=True)
    _show_structures(rows)
    _show_warnings(rows)
    changed = unlike_recipe(folder, one.bundle)
    if changed:
        cells = [[key, _short(values[1]), _short(values[0])] for key, values in changed.items()]
        screen.print(table("Settings unlike the recipe", ["", "this run", "recipe"], cells, left=(0, 1, 2)))
    there = {name: folder / path for name, path in _FILES.items() if (folder / path).exists()}
    screen.print(Text(f"Folder: {folder.resolve()}"), soft_wrap=True)
    screen.print(Text(f"  {', '.join(str(path.relative_to(folder)) for path in there.values())}"), soft_wrap=True)


def _facts(one: Summary, record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    facts = {"bundle": str(one.bundle), "epoch": _epochs(one)}
    if one.iteration is not None:
        facts["epoch"] += f", iteration {one.iteration}"
    if one.started is not None:
        facts["started"] = f"{datetime.fromtimestamp(one.started):%Y-%m-%d %H:%M}"
    if one.heard is not None:
        facts["heard"] = f"{duration(max(0.0, time.time() - one.heard))} ago, process {one.pid} on {one.host}"
    if one.state == RUNNING:
        facts["time left"] = duration(one.seconds_left)
    facts["best Dice"] = _best(one)
    if one.error:
        facts["error"] = str(one.error)
    cases = record.get("cases") or {}
    counts = ", ".join(f"{len(ids)} {side}" for side, ids in cases.items() if ids)
    facts["data"] = f"{record.get('dataset')}" + (f" ({counts})" if counts else "")
    if record.get("device"):
        facts["device"] = str(record["device"])
    pace, seconds = speed(rows)
    waits = [row["data_wait"] for row in rows if row.get("data_wait") is not None]
    facts["speed"] = f"{number(pace, 1)} samples/s, {duration(seconds)} an epoch"
    if waits:
        facts["speed"] += f", {waits[-1]:.0%} of it waiting for data"
    machine = next((row for row in reversed(rows) if row.get("kind") == "system"), None)
    if machine is not None:
        facts["machine"] = _machine(machine)
    monitor = read_json(Path(one.folder) / "monitor" / "state.json")
    if monitor:
        facts["page"] = str(monitor.get("url") or f"none ({monitor.get('backend')}, {monitor.get('mode')})")
    watched = read_json(Path(one.folder) / "watch.json")
    if watched:
        facts["watched"] = f"{watched.get('restarts')} restarts" + (", no longer" if watched.get("ended") else "")
    return facts


def _machine(row: Mapping[str, Any]) -> str:
    parts = []
    for index, gpu in enumerate(row.get("gpu") or []):
        used, total = _gb(gpu.get("memory_used")), _gb(gpu.get("memory_total"))
        parts.append(f"GPU {index} {_percent(gpu.get('load'))}, {used} of {total} GB")
    parts.append(f"CPU {_percent(row.get('cpu'))}")
    parts += [
        f"{said} {_gb(row[key])} GB"
        for key, said in (("ram_process", "RAM of it"), ("ram_free", "RAM left"), ("disk_free", "disk left"))
        if row.get(key) is not None
    ]
    return ", ".join(parts)


def _curves(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[float | None], int]]:
    """Loss by epoch, by batch while there is no second epoch; mean Dice by validation."""
    epochs = [row.get("loss") for row in rows if row.get("kind") == "epoch"]
    batches = [row.get("loss") for row in rows if row.get("kind") == "batch"]
    dice = [row.get("mean_dice") for row in rows if row.get("kind") == "validation"]
    return [("loss", epochs if len(epochs) > 1 else batches, 3), ("Dice", dice, 3)]


def _show_structures(rows: Sequence[Mapping[str, Any]]) -> None:
    best = best_validation(rows)
    scores = {name: value for name, value in ((best or {}).get("dice") or {}).items() if value is not None}
    if best is None or not scores:
        return
    order = sorted(scores, key=lambda name: float(scores[name]))
    listed = order if len(order) <= 2 * _SHOWN else [*order[:_SHOWN], *order[-_SHOWN:]]
    cells = [[name, number(scores[name])] for name in listed]
    if len(order) > len(listed):
        cells.insert(_SHOWN, [f"... {len(order) - len(listed)} more", ""])
    console().print(table(f"Dice by structure, epoch {best.get('epoch')}, worst first", ["", "Dice"], cells))


def _show_warnings(rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.text import Text

    for row in [row for row in rows if row.get("kind") == "warning"][-_SHOWN:]:
        where = f" (epoch {row['epoch']})" if row.get("epoch") is not None else ""
        colour = "red" if row.get("level") == "error" else "yellow"
        said = ": ".join(str(row[key]) for key in ("title", "text") if row.get(key))
        said = printable(said, len(said))
        console().print(Text(f"{str(row.get('level', 'warning')).capitalize()}{where}: {said}", style=colour))


def show_comparison(found: Mapping[str, Any]) -> None:
    """Runs side by side, a column each."""
    runs: Sequence[Summary] = found["runs"]
    screen = console()
    names = [str(number) for number in range(1, len(runs) + 1)]
    for name, one in zip(names, runs, strict=True):
        screen.print(
            f"{name}: {printable(one.name)} ({printable(str(one.bundle))})",
            markup=False,
            soft_wrap=True,
        )
    facts: list[list[str | Text]] = [
        ["state", *(_state(one.state) for one in runs)],
        ["epoch", *(_epochs(one) for one in runs)],
        ["best mean Dice", *(_best(one) for one in runs)],
        ["samples/s", *(number(value, 1) for value in found["samples_per_second"])],
        ["time an epoch", *(duration(value) for value in found["epoch_seconds"])],
    ]
    screen.print(table("", ["", *names], facts))
    if found["settings"]:
        cells = [[key, *(_short(value) for value in values)] for key, values in found["settings"].items()]
        screen.print(table("Settings that differ", ["", *names], cells))
    else:
        screen.print("The settings are the same.", markup=False)
    if found["dice"]:
        cells = [[key, *(number(value) for value in values)] for key, values in sorted(found["dice"].items())]
        screen.print(table("Dice by structure, best epoch of each", ["", *names], cells))


def _state(state: str) -> Text:
    from rich.text import Text

    return Text(state, style=_COLOURS.get(state, ""))


def _epochs(one: Summary) -> str:
    done = "-" if one.epoch is None else str(one.epoch)
    return f"{done}/{one.max_epochs}" if one.max_epochs else done


def _best(one: Summary) -> str:
    if one.best_dice is None or one.best_dice < 0:
        return "-"
    return number(one.best_dice) + (f" (epoch {one.best_epoch})" if one.best_epoch else "")


def _when(one: Summary) -> str:
    if one.started is None:
        return "-"
    return f"{datetime.fromtimestamp(one.started):%d %b %H:%M}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _VALUE else f"{text[: _VALUE - 3]}..."


def _gb(count: float | None) -> str:
    return "-" if count is None else f"{count / 2**30:.1f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
