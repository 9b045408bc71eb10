"""What a tracker gets: each row as numbers, images, histograms and alerts, and the run's config; no paths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.runs.record import read_json, read_record

_PREFIX = {"batch": "train", "validation": "val", "begin": "run", "end": "run"}
_COMMON = ("kind", "time", "epoch", "iteration")
_ENDED = {"failed": "error", "interrupted": "warning"}
_LONGEST_TITLE = 63
_URL = re.compile(r"\b[A-Za-z][\w+.-]*://[^\s'\",;)]+|\\\\[^\s\\'\"]+\\[^\n'\",;):]*")
# Two parts at least: '/.cache' within an expression says nothing of the machine. Names may hold spaces, and where such
# a name ends cannot be told: what follows is taken with it, up to the next mark.
_PATH = re.compile(
    r"(?<![\w@#%./\\])(?:~|\.{1,2}|[A-Za-z]:)?[/\\][^\s/\\'\",;:)][^/\\'\",;:)\n]*[/\\](?:[^\n'\",;):]|:(?!\s))*"
)
_WHOLE_PATH = re.compile(r"^(?:~|[A-Za-z]:)?[/\\]|^\w+://")
_PRIVATE_KEYS = {
    *("backup", "bundle_root", "ckpt_path", "dataset_dir", "exclude", "imports", "initialize", "monitor"),
    *("output_dir", "run", "save_execute_config", "training", "_meta_"),
}


@dataclass(frozen=True)
class TrackerRow:
    """One row as a tracker takes it.

    Args:
        values: numbers by key; iteration and epoch are among them, where the row has them.
        images: key, file (relative to the run's folder), caption.
        histograms: counts `(n,)` and edges `(n + 1,)` by key.
        alerts: level (`warning` or `error`), title, text.
        summary: values that stand above a run in a table of runs.
    """

    values: dict[str, float | int | str]
    images: list[tuple[str, str, str]] = field(default_factory=list)
    histograms: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    alerts: list[tuple[str, str, str]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)


def tracker_row(row: Mapping[str, Any]) -> TrackerRow:
    """Translate a row of the metrics log; of a kind that is unknown here, its numbers.

    Example:
        >>> tracker_row({"kind": "batch", "iteration": 10, "epoch": 1, "loss": 0.5, "grad_norm": None}).values
        {'epoch': 1, 'iteration': 10, 'train/loss': 0.5}
    """
    kind = str(row.get("kind", "row"))
    common = {key: row[key] for key in ("epoch", "iteration") if isinstance(row.get(key), (int, float))}
    fields = {key: value for key, value in row.items() if key not in _COMMON}
    if kind == "image":
        image = (f"val/images/{row.get('case')}", str(row.get("file")), without_paths(str(row.get("caption") or "")))
        return TrackerRow(common, [image])
    if kind == "histogram":
        return TrackerRow(common, histograms=_histograms(fields))
    if kind == "warning":
        level = str(row.get("level", "warning"))
        title = without_paths(str(row.get("title", "")))[:_LONGEST_TITLE]
        alert = (level, title, without_paths(str(row.get("text") or "")))
        return TrackerRow({**common, f"warnings/{level}": 1}, alerts=[alert])
    translated = TrackerRow({**common, **_numbers(fields, _PREFIX.get(kind, kind))})
    if kind == "validation":
        best = {key: row[key] for key in ("best_dice", "best_epoch") if row.get(key) is not None}
        translated.summary.update(best)
    if kind == "end":
        state = str(row.get("state"))
        translated.summary["state"] = state
        if state in _ENDED:
            translated.alerts.append((_ENDED[state], f"The run was {state}"[:_LONGEST_TITLE], "Its log says why."))
    if kind == "case":
        translated.values["case/id"] = str(row.get("case"))
        if row.get("file"):
            translated.images.append((f"case/images/{row.get('case')}", str(row["file"]), str(row.get("case"))))
    return translated


def _numbers(value: Any, key: str) -> dict[str, float | int | str]:
    """Return every number in nested dictionaries and lists by its path."""
    if isinstance(value, bool):
        return {key: int(value)}
    if isinstance(value, (int, float)):
        return {key: value}
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    numbers: dict[str, float | int | str] = {}
    for name, part in parts:
        numbers.update(_numbers(part, f"{key}/{name}"))
    return numbers


def _histograms(row: Mapping[str, Any]) -> dict[str, tuple[list[float], list[float]]]:
    return {
        f"{group}/{name}": (histogram["counts"], histogram["edges"])
        for group in ("parameters", "gradients")
        for name, histogram in (row.get(group) or {}).items()
    }


def tracker_config(folder: str | Path) -> dict[str, Any]:
    """Return what a tracker shows beside the series of a run.

    That is the effective config without what says where files lie, versions, git state, the data's fingerprint and
    the numbers of cases.

    Args:
        folder: the run's folder.
    """
    record = read_record(folder)
    config = read_json(Path(folder) / "configs" / "train.json")
    content = dict(_public({key: value for key, value in config.items() if key not in _PRIVATE_KEYS}))
    content |= {key: record[key] for key in ("bundle", "versions", "data") if record.get(key) is not None}
    git = record.get("git")
    if isinstance(git, Mapping):
        content["git"] = {key: git[key] for key in ("commit", "dirty") if key in git}
    cases = record.get("cases")
    if isinstance(cases, Mapping):
        content["cases"] = {subset: len(names) for subset, names in cases.items() if isinstance(names, list)}
    return content


def _public(value: Any) -> Any:
    """Return a value without the texts that are paths, and without the paths in other texts."""
    if isinstance(value, Mapping):
        return {str(key): _public(part) for key, part in value.items() if not _is_path(part)}
    if isinstance(value, list):
        return [_public(part) for part in value if not _is_path(part)]
    return without_paths(value) if isinstance(value, str) else value


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and _WHOLE_PATH.match(value) is not None


def without_paths(text: str) -> str:
    """Replace the paths and addresses in a text.

    Example:
        >>> without_paths("/home/max/data/s0001/ct.nii.gz: the file ends early")
        '(a file): the file ends early'
    """
    return _PATH.sub("(a file)", _URL.sub("(an address)", text))
