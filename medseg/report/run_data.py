"""What the folder of a run holds, read for its report: tolerant of what is missing, damaged or foreign."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.errors import RunError
from medseg.runs.metrics_log import number_of, read_rows
from medseg.runs.record import HISTORY, METRICS_LOG, RECORD, read_record

Row = Mapping[str, Any]
_PICTURE = re.compile(r"epoch_(\d+)_(.+)\.png$")
_PARTS = {
    RECORD: "who it is, how it stands and when it was started",
    METRICS_LOG: "the series of batches, of the machine and of warnings",
    HISTORY: "the series by epoch",
    "configs/train.json": "the settings",
    "label_map.json": "the structures' order",
    "previews": "the pictures",
}


@dataclass(frozen=True)
class RunData:
    """A run as its folder tells it.

    Attributes:
        folder: where it lies.
        record: `run.json`; empty where there is none.
        rows: those of `metrics.jsonl` by kind, each with its number; what has no such rows is not there.
        config: the effective config; empty where there is none.
        structures: their names in the label map's order, without the background.
        pictures: files of `previews/` by case and epoch.
        notes: what is missing or could not be read, a sentence each.
    """

    folder: Path
    record: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, list[tuple[int, Row]]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    structures: tuple[str, ...] = ()
    pictures: Mapping[str, Mapping[int, Path]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def of(self, kind: str) -> list[Row]:
        """The rows of one kind, in the order in which they were written."""
        return [row for _, row in self.rows.get(kind, ())]

    @property
    def epoch_length(self) -> float | None:
        """Batches in an epoch; None where nothing tells."""
        for row in (*reversed(self.of("begin")), self.record):
            if value := number_of(row.get("epoch_length")):
                return value
        for row in reversed(self.of("epoch")):
            epoch, iteration = number_of(row.get("epoch")), number_of(row.get("iteration"))
            if epoch and iteration:
                return iteration / epoch
        return None

    @property
    def max_epochs(self) -> int | None:
        """How many epochs it was to run; None where nothing tells."""
        for row in (self.record, *reversed(self.of("begin")), self.config):
            if value := number_of(row.get("max_epochs")):
                return int(value)
        return None

    @property
    def best(self) -> tuple[float, int] | None:
        """The best mean Dice and its epoch; None before the first validation."""
        found = [
            (dice, int(number_of(row.get("epoch")) or 0))
            for row in self.of("validation")
            if (dice := number_of(row.get("mean_dice"))) is not None
        ]
        return max(found, key=lambda one: (one[0], -one[1])) if found else None


def read_run(folder: str | Path) -> RunData:
    """Read the folder of a run, whatever of it is there.

    Raises:
        RunError: it holds nothing that a run writes.
    """
    folder = Path(folder)
    if not any((folder / name).exists() for name in (RECORD, METRICS_LOG, HISTORY)):
        raise RunError(
            folder, f"must be the folder of a run, with {RECORD}, {METRICS_LOG} or {HISTORY}", "none of them"
        )
    notes = [f"{name} is not there: {what} cannot be shown." for name, what in _PARTS.items() if _absent(folder, name)]
    rows = _rows(folder, notes)
    config = _json(folder / "configs" / "train.json", notes)
    labels = _json(folder / "label_map.json", notes)
    return RunData(
        folder,
        _record(folder, notes),
        rows,
        config,
        tuple(str(name) for index, name in sorted(labels.items(), key=_index) if str(index) != "0"),
        _pictures(folder / "previews"),
        tuple(notes),
    )


def _absent(folder: Path, name: str) -> bool:
    return not (folder / name).exists()


def _index(item: tuple[str, Any]) -> tuple[int, str]:
    return (int(item[0]), "") if item[0].isdecimal() else (10**9, item[0])


def _record(folder: Path, notes: list[str]) -> dict[str, Any]:
    try:
        return read_record(folder)
    except (RunError, TypeError, ValueError) as error:
        notes.append(f"{RECORD} cannot be read: {error}")
        return {}


def _json(path: Path, notes: list[str]) -> dict[str, Any]:
    """The object in a file; empty, with a note, where it is damaged."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} cannot be read: {error}.")
        return {}
    if isinstance(content, dict):
        return content
    notes.append(f"{path.name} holds no JSON object and is left out.")
    return {}


def _rows(folder: Path, notes: list[str]) -> dict[str, list[tuple[int, Row]]]:
    """The rows by kind; from `training_history.json` where `metrics.jsonl` has none."""
    found: dict[str, list[tuple[int, Row]]] = {}
    expected = left_out = 0
    for number, row in read_rows(folder):
        left_out += number - expected
        expected = number + 1
        found.setdefault(str(row.get("kind", "")), []).append((number, row))
    if left_out:
        lines = "1 line" if left_out == 1 else f"{left_out} lines"
        notes.append(f"{lines} of {METRICS_LOG} cannot be read, as after a kill in the middle of writing; left out.")
    if not found:
        for number, row in enumerate(_from_history(_json(folder / HISTORY, notes))):
            found.setdefault(str(row["kind"]), []).append((number, row))
    return found


def _from_history(history: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of epochs and validations that the history of a run without `metrics.jsonl` tells of."""
    epochs = history.get("epochs")
    for one in epochs if isinstance(epochs, list) else ():
        if not isinstance(one, dict):
            continue
        yield {"kind": "epoch", **{key: value for key, value in one.items() if not isinstance(value, dict)}}
        if one.get("mean_dice") is not None or one.get("dice"):
            yield {"kind": "validation", **one}


def _pictures(folder: Path) -> dict[str, dict[int, Path]]:
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.glob("*.png")):
        if named := _PICTURE.match(path.name):
            found.setdefault(named[2], {})[int(named[1])] = path
    return found
