"""What a row of `metrics.jsonl` is to a tracker: numbers, pictures, histograms, alerts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_PREFIX = {"batch": "train", "validation": "val", "begin": "run", "end": "run"}
_COMMON = ("kind", "time", "epoch", "iteration")
_ENDED = {"failed": "error", "interrupted": "warning"}
_URL = re.compile(r"\b[A-Za-z][\w+.-]*://[^\s'\",;)]+|\\\\[^\s\\'\"]+\\[^\n'\",;):]*")
# Two parts at least: '/.cache' within an expression says nothing of the machine. Names may hold spaces, and nobody
# knows where such a one ends: what follows goes with it, up to the next mark.
_PATH = re.compile(
    r"(?<![\w@#%./\\])(?:~|\.{1,2}|[A-Za-z]:)?[/\\][^\s/\\'\",;:)][^/\\'\",;:)\n]*[/\\](?:[^\n'\",;):]|:(?!\s))*"
)


@dataclass(frozen=True)
class Payload:
    """What is sent of one row.

    Args:
        values: numbers by key; every row has its iteration and epoch, where it says them.
        images: key, file (relative to the run's folder), caption.
        histograms: counts `(n,)` and edges `(n + 1,)` by key.
        alerts: level (`warning` or `error`), title, text.
        summary: what stands above a run in a table of runs.
    """

    values: dict[str, float | int | str]
    images: list[tuple[str, str, str]] = field(default_factory=list)
    histograms: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    alerts: list[tuple[str, str, str]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)


def payload(row: Mapping[str, Any]) -> Payload:
    """Translate a row; a kind that nobody told of here gives its numbers.

    >>> payload({"kind": "batch", "iteration": 10, "epoch": 1, "loss": 0.5, "grad_norm": None}).values
    {'epoch': 1, 'iteration': 10, 'train/loss': 0.5}
    """
    kind = str(row.get("kind", "row"))
    prefix = _PREFIX.get(kind, kind)
    common = {key: row[key] for key in ("epoch", "iteration") if isinstance(row.get(key), (int, float))}
    rest = {key: value for key, value in row.items() if key not in _COMMON}
    if kind == "image":
        image = (f"val/images/{row.get('case')}", str(row.get("file")), without_paths(str(row.get("caption") or "")))
        return Payload(common, [image])
    if kind == "histogram":
        return Payload(common, histograms=_histograms(rest))
    if kind == "warning":
        level = str(row.get("level", "warning"))
        told = (level, without_paths(str(row.get("title", "")))[:63], without_paths(str(row.get("text") or "")))
        return Payload({**common, f"warnings/{level}": 1}, alerts=[told])
    found = Payload({**common, **_numbers(rest, prefix)})
    if kind == "validation":
        found.summary.update({key: row[key] for key in ("best_dice", "best_epoch") if row.get(key) is not None})
    if kind == "end":
        state = str(row.get("state"))
        found.summary["state"] = state
        if state in _ENDED:
            found.alerts.append((_ENDED[state], f"The run was {state}"[:63], "Its log says why."))
    if kind == "case":
        found.values["case/id"] = str(row.get("case"))
        if row.get("file"):
            found.images.append((f"case/images/{row.get('case')}", str(row["file"]), str(row.get("case"))))
    return found


def _numbers(value: Any, key: str) -> dict[str, float | int | str]:
    """Every number in nested dictionaries and lists, by its path."""
    if isinstance(value, bool):
        return {key: int(value)}
    if isinstance(value, (int, float)):
        return {key: value}
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    found: dict[str, float | int | str] = {}
    for name, part in parts:
        found.update(_numbers(part, f"{key}/{name}"))
    return found


def _histograms(row: Mapping[str, Any]) -> dict[str, tuple[list[float], list[float]]]:
    return {
        f"{what}/{name}": (one["counts"], one["edges"])
        for what in ("parameters", "gradients")
        for name, one in (row.get(what) or {}).items()
    }


def without_paths(text: str) -> str:
    """A text in which places on this machine are not named.

    >>> without_paths("/home/max/data/s0001/ct.nii.gz: must be whole")
    '(a file): must be whole'
    """
    return _PATH.sub("(a file)", _URL.sub("(a place)", text))
