"""The report of a run as one HTML file: no other file, no network, light and dark, for screens of any width."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from medseg.atomic import write_text
from medseg.report.charts import number
from medseg.report.page import page
from medseg.report.run_curves import curves, first_time, machine
from medseg.report.run_data import RunData, number_of
from medseg.report.run_histograms import histograms
from medseg.report.run_previews import previews
from medseg.report.run_settings import settings
from medseg.report.run_structures import structures
from medseg.runs.record import DIED, FAILED, FINISHED, INTERRUPTED, RUNNING, state_of

_VERDICTS = {
    FINISHED: ("good", "Finished"),
    RUNNING: ("busy", "Running"),
    INTERRUPTED: ("wait", "Interrupted: the same command goes on with it"),
    FAILED: ("bad", "Failed"),
    DIED: ("bad", "Died: its process is gone; the same command goes on with it"),
}
_MOST_WARNINGS = 500


def save_run_page(path: str | Path, run: RunData, recipe: Mapping[str, Any] | None = None) -> Path:
    """Write the report of a run as one HTML page.

    Args:
        path: the `.html` file.
        run: what its folder holds, see `read_run`.
        recipe: the `train.json` that it is held against, see `find_recipe`.

    Raises:
        OutputError: the place cannot be written.
    """
    write_text(path, run_page(run, recipe or {}))
    return Path(path)


def run_page(run: RunData, recipe: Mapping[str, Any]) -> str:
    """The HTML of `save_run_page`."""
    sections = [
        ("notes", "To be known", _notes(run)),
        ("curves", "Curves", curves(run) or '<p class="none">Nothing has been recorded yet.</p>'),
        ("structures", "Dice by structure", structures(run) or _unvalidated(run)),
        ("pictures", "Pictures", previews(run)),
        ("machine", "Machine", machine(run)),
        ("spread", "Weights and gradients", histograms(run)),
        ("warnings", "Warnings", _warnings(run)),
        ("settings", "Settings", settings(run, recipe)),
        ("about", "Versions and origin", _about(run)),
    ]
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return page(
        f"Run: {name_of(run)}", _header(run), sections,
        f"Written by medseg report, {written}. Everything is in this one file.",
        ["dataset_page.css", "evaluation_page.css", "run_page.css"], ["tables.js", "run_page.js"],
    )  # fmt: skip


def name_of(run: RunData) -> str:
    """The run's name for people: that of its folder, which is unique."""
    return run.folder.resolve().name


def duration(seconds: float) -> str:
    """A time for people, a number never parted from its unit.

    >>> [duration(seconds).replace("\u00a0", " ") for seconds in (42.2, 754, 11580, 200000)]
    ['42 s', '12 min 34 s', '3 h 13 min', '2 d 7 h']
    """
    whole = round(seconds)
    for size, unit, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            more = f" {rest}\u00a0{small}" if rest else ""
            return f"{whole // size}\u00a0{unit}{more}"
    return f"{whole}\u00a0s"


def _header(run: RunData) -> str:
    record = run.record
    state = state_of(record) if record else "unknown"
    kind, said = _VERDICTS.get(state, ("wait", "State unknown"))
    error = f'<p class="problem">{escape(str(record["error"]))}</p>' if record.get("error") else ""
    bundle = escape(str(record.get("bundle", "unknown bundle")))
    given = f", {escape(str(record['name']))}" if record.get("name") else ""
    facts = [
        ("Started", _moment(record.get("started"), first_time(run))),
        ("Device", _device(run)),
        ("Cases", _cases(record)),
        ("Data", _code(record.get("data"))),
        ("Code", _git(record.get("git"))),
    ]
    list_ = "".join(f"<div><dt>{key}</dt><dd>{value}</dd></div>" for key, value in facts if value)
    return (
        f'<header><p class="eyebrow">Training of {bundle}{given}</p><h1>{escape(name_of(run))}</h1>'
        f'<p class="verdict {kind}">{said}</p>{error}<dl class="facts">{list_}</dl>{_tiles(run, state)}</header>'
    )


def _tiles(run: RunData, state: str) -> str:
    means = [value for row in run.of("validation") if (value := number_of(row.get("mean_dice"))) is not None]
    last = means[-1] if means else None
    epochs = max(
        [0, *(int(number_of(row.get("epoch")) or 0) for kind in ("epoch", "validation") for row in run.of(kind))]
    )
    loss = next((value for row in reversed(run.of("epoch")) if (value := number_of(row.get("loss"))) is not None), None)
    speed = [value for row in run.of("epoch") if (value := number_of(row.get("samples_per_second"))) is not None]
    begun = sum(bool(row.get("resumed")) for row in run.of("begin"))
    whole = f"of {number(run.max_epochs)}" if run.max_epochs else ""
    took = _worked(run)
    left = _left(run) if state == RUNNING else None
    resumed = "" if not begun else "resumed once" if begun == 1 else f"resumed {begun} times"
    tiles = [
        (
            "Best mean Dice",
            f"{run.best[0]:.4f}" if run.best else "\u2013",
            f"in epoch {run.best[1]}" if run.best else "",
        ),
        ("Last mean Dice", "\u2013" if last is None else f"{last:.4f}", ""),
        ("Epochs done", number(epochs), whole),
        ("Time at work", "\u2013" if took is None else duration(took), resumed),
        *([("Time left", duration(left), "")] if left is not None else []),
        ("Loss, last epoch", "\u2013" if loss is None else f"{loss:.4g}", ""),
        *([("Samples per second", number(speed[-1]), "")] if speed else []),
    ]
    boxes = "".join(
        f'<div class="tile"><b>{value}</b><span>{name}</span>{f"<small>{note}</small>" if note else ""}</div>'
        for name, value, note in tiles
    )
    return f'<div class="tiles">{boxes}</div>'


def _worked(run: RunData) -> float | None:
    """Seconds from each start to the last row before the next one, pauses left out; None where no row has a time."""
    rows = sorted((index, kind, time) for kind, ones in run.rows.items() for index, time in _timed(ones))
    total, begun, latest = 0.0, None, None
    for _, kind, time in rows:
        if begun is None or kind == "begin":
            total += (latest - begun) if latest is not None and begun is not None else 0.0
            begun = time
        latest = time
    if begun is None or latest is None:
        return None
    total += latest - begun
    if any(kind == "begin" for _, kind, _ in rows):
        return total
    started = _stamp(run.record.get("started"))
    return max(total, latest - started) if started is not None else total


def _timed(rows: list[tuple[int, Mapping[str, Any]]]) -> list[tuple[int, float]]:
    return [(index, time) for index, row in rows if (time := number_of(row.get("time"))) is not None]


def _left(run: RunData) -> float | None:
    rows = [row for kind in ("batch", "epoch") for row in run.of(kind)[-1:]]
    rows.sort(key=lambda row: number_of(row.get("time")) or 0.0)
    return number_of(rows[-1].get("seconds_left")) if rows else None


def _stamp(text: object) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def _moment(text: object, otherwise: float | None) -> str:
    """A time as people write it, in the zone in which it was written down."""
    try:
        return datetime.fromisoformat(str(text)).strftime("%Y-%m-%d %H:%M %z")
    except ValueError:
        if otherwise is None:
            return ""
        return datetime.fromtimestamp(otherwise, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _device(run: RunData) -> str:
    found = [str(row["device"]) for row in run.of("begin") if row.get("device")]
    return escape(found[-1] if found else str(run.record.get("device") or ""))


def _cases(record: Mapping[str, Any]) -> str:
    cases = record.get("cases")
    if not isinstance(cases, Mapping):
        return ""
    names = {"train": "training", "val": "validation", "test": "test"}
    counts = [
        f"{len(ids)} {names.get(side, escape(str(side)))}" for side, ids in cases.items() if hasattr(ids, "__len__")
    ]
    return ", ".join(counts)


def _code(value: object) -> str:
    if isinstance(value, Mapping):
        value = value.get("fingerprint", value)
    return f"<code>{escape(str(value)[:16])}</code>" if value else ""


def _git(git: object) -> str:
    if not isinstance(git, Mapping) or not git.get("commit"):
        return ""
    changed = " with changes that are not committed" if git.get("dirty") else ""
    return f"commit <code>{escape(str(git['commit'])[:12])}</code>{changed}"


def _notes(run: RunData) -> str:
    if not run.notes:
        return ""
    lines = "".join(f'<p><span class="badge note">note</span> {escape(note)}</p>' for note in run.notes)
    return f'<div class="card notes">{lines}</div>'


def _unvalidated(run: RunData) -> str:
    return '<p class="none">There has been no validation yet.</p>' if run.rows or run.record else ""


def _warnings(run: RunData) -> str:
    rows = run.of("warning")
    if not rows:
        return ""
    start = first_time(run)
    lines = []
    for row in rows[-_MOST_WARNINGS:]:
        time, level = number_of(row.get("time")), "error" if row.get("level") == "error" else "warning"
        after = duration(time - start) if time is not None and start is not None else ""
        epoch = number_of(row.get("epoch"))
        lines.append(
            f'<tr><td><span class="badge {level}">{level}</span><em>{after}</em></td>'
            f'<td class="n wide">{"" if epoch is None else f"{epoch:g}"}</td>'
            f"<td><b>{escape(str(row.get('title', '')))}</b><em>{escape(str(row.get('text', '')))}</em></td></tr>"
        )
    rest = len(rows) - len(lines)
    more = f'<p class="lead small">The first {rest} are in warnings.csv.</p>' if rest else ""
    return (
        '<div class="card scroll"><table class="log"><thead><tr><th>Level, after</th><th class="n wide">Epoch</th>'
        f"<th>What was so, and what to do</th></tr></thead><tbody>{''.join(lines)}</tbody></table></div>{more}"
    )


def _about(run: RunData) -> str:
    record = run.record
    versions = record.get("versions")
    rows: list[tuple[str, object]] = list(versions.items()) if isinstance(versions, Mapping) else []
    command = record.get("command")
    rows += [
        ("command", " ".join(map(str, command)) if isinstance(command, list) else command),
        ("working directory", record.get("working_directory")),
        ("data set", record.get("dataset")),
        ("data fingerprint", record.get("data")),
        ("git", json.dumps(record["git"]) if record.get("git") else None),
        ("identity", record.get("identity")),
        ("host", record.get("host")),
        ("folder", str(run.folder.resolve())),
    ]
    lines = "".join(
        f"<tr><td>{escape(str(key))}</td><td><code>{escape(str(value))}</code></td></tr>"
        for key, value in rows
        if value
    )
    return f'<div class="card scroll"><table class="pairs two"><tbody>{lines}</tbody></table></div>'
