"""A run on disk, read from its folder; tolerant of what is missing, damaged or foreign."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.errors import RunError
from medseg.runs.metrics_log import Row, best_validation, number_of, read_kind, read_rows, read_tail
from medseg.runs.record import (
    DIED,
    HISTORY,
    METRICS_LOG,
    RECORD,
    RUNNING,
    UNREADABLE,
    is_local,
    read_json,
    read_record,
    state_of,
)

if TYPE_CHECKING:
    import torch

SILENT_MINUTES = 10  # a run on another machine counts as dead after so long without a sign of life
_PREVIEW = re.compile(r"epoch_(\d+)_(.+)\.png$")
_PARTS = {
    RECORD: "the identity, state and start of the run",
    METRICS_LOG: "the curves by batch, the machine and the warnings",
    HISTORY: "the curves by epoch",
    "configs/train.json": "the settings",
    "label_map.json": "the order of the structures",
    "previews": "the preview images",
}


@dataclass(frozen=True)
class Best:
    """The best validation of a run.

    Args:
        dice: mean Dice over the structures.
        epoch: its epoch.
        by_structure: Dice by structure; None for one that no case has.
    """

    dice: float
    epoch: int
    by_structure: Mapping[str, float | None] = field(default_factory=dict)


class Run:
    """Read the folder of a run: settings, curves, state, best result.

    Each file is read when it is first asked for, and once: make a new `Run` to see what a training wrote since.

    Args:
        folder: the run's folder.
        now: the time from which silence and the time left are counted, Unix seconds. Default: the present.

    Raises:
        RunError: the folder holds nothing that a run writes.

    Example:
        >>> run = medseg.Run("runs/unet2d/20261122-231639-demo")  # doctest: +SKIP
        >>> run.state, run.best.dice, run.config["lr"]  # doctest: +SKIP
        ('finished', 0.8125, 0.001)
        >>> pandas.DataFrame(run.history).plot("epoch", ["loss", "mean_dice"])  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path, now: float | None = None) -> None:
        self.folder = Path(folder)
        self.now = time.time() if now is None else now
        if not any((self.folder / name).exists() for name in (RECORD, METRICS_LOG, HISTORY)):
            problem = f"this is no folder of a run: it holds neither {RECORD} nor {METRICS_LOG} nor {HISTORY}"
            raise RunError(self.folder, problem)
        self._damage: dict[str, str] = {}

    def __repr__(self) -> str:
        """Name the folder."""
        return f"Run({str(self.folder)!r})"

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @cached_property
    def record(self) -> dict[str, Any]:
        """The content of `run.json`; empty where it is missing or damaged."""
        try:
            return read_record(self.folder)
        except RunError as error:
            self._damage[RECORD] = str(error)
            return {}

    @cached_property
    def config(self) -> dict[str, Any]:
        """The effective config: recipe, overlays and overrides merged; empty where it is missing or damaged."""
        return self._json(self.folder / "configs" / "train.json")

    @cached_property
    def rows(self) -> dict[str, list[tuple[int, Row]]]:
        """The rows of the metrics log with their numbers, by kind; made from the history where there is no log."""
        rows: dict[str, list[tuple[int, Row]]] = {}
        expected = 0
        missing = 0
        for number, row in read_rows(self.folder):
            missing += number - expected
            expected = number + 1
            rows.setdefault(str(row.get("kind", "")), []).append((number, row))
        if missing:
            lines = "1 line" if missing == 1 else f"{missing} lines"
            self._damage[METRICS_LOG] = f"{lines} of {METRICS_LOG} cannot be read, as after a kill; left out."
        if not rows:
            for number, row in enumerate(_rows_of_history(self._json(self.folder / HISTORY))):
                rows.setdefault(str(row["kind"]), []).append((number, row))
        return rows

    def rows_of(self, kind: str) -> list[Row]:
        """Return the rows of one kind (`batch`, `epoch`, `validation`, `system`, `warning` ...), oldest first."""
        return [row for _, row in self.rows.get(kind, ())]

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row an epoch, as `pandas.DataFrame` takes it; `dice/NAME` is the Dice of a structure."""
        validations = {row.get("epoch"): row for row in self.rows_of("validation")}
        table = []
        for row in self.rows_of("epoch"):
            entry = {key: value for key, value in row.items() if key != "kind"}
            for key, value in validations.get(row.get("epoch"), {}).items():
                if isinstance(value, Mapping):
                    entry |= {f"{key}/{name}": score for name, score in value.items()}
                elif key not in ("kind", "time", "epoch", "iteration"):
                    entry[key] = value
            table.append(entry)
        return table

    @cached_property
    def best(self) -> Best | None:
        """The best validation so far; None before the first."""
        row = best_validation(read_kind(self.folder, "validation"))
        if row is None and not self.tail:
            row = best_validation(self.rows_of("validation"))
        if row is not None:
            dice = row.get("dice")
            scores = {str(name): number_of(score) for name, score in dice.items()} if isinstance(dice, Mapping) else {}
            return Best(float(row["mean_dice"]), int(number_of(row.get("epoch")) or 0), scores)
        for content in (self.record, read_json(self.folder / HISTORY)):
            best_dice = number_of(content.get("best_dice"))
            if best_dice is not None and best_dice >= 0:
                return Best(best_dice, int(number_of(content.get("best_epoch")) or 0))
        return None

    @property
    def state(self) -> str:
        """`running`, `finished`, `interrupted`, `failed`, `died`, `unreadable`, or `unknown` without a record."""
        record = self.record
        return UNREADABLE if RECORD in self._damage else run_state(self.folder, record, self.now)

    @property
    def error(self) -> str | None:
        """The error that ended it, or what is wrong with its record; None where all is well."""
        message = self.record.get("error")
        return self._damage.get(RECORD) or (None if message is None else str(message))

    @property
    def bundle(self) -> str | None:
        """The name of the bundle that it trains."""
        return self.record.get("bundle")

    @cached_property
    def tail(self) -> list[dict[str, Any]]:
        """The latest rows of the metrics log, oldest first: enough to tell how a running run does."""
        return read_tail(self.folder)

    @property
    def epoch(self) -> int | None:
        """The latest epoch; the rows are newer than the record within an epoch."""
        epochs = [_latest(self.tail, "epoch"), self.record.get("epoch"), *(row.get("epoch") for row in self.tail[-20:])]
        return max((epoch for epoch in epochs if isinstance(epoch, int)), default=None)

    @property
    def iteration(self) -> int | None:
        """The latest iteration that was recorded."""
        iteration = _latest(self.tail, "iteration")
        return self.record.get("iteration") if iteration is None else iteration

    @property
    def max_epochs(self) -> int | None:
        """The number of epochs that it is to run; None where nothing says it."""
        for value in (self.record.get("max_epochs"), _latest(self.tail, "max_epochs"), self.config.get("max_epochs")):
            if (number := number_of(value)) is not None and number > 0:
                return int(number)
        return next((int(row["max_epochs"]) for row in self.rows_of("begin") if number_of(row.get("max_epochs"))), None)

    @property
    def epoch_length(self) -> float | None:
        """Batches in an epoch; None where nothing says it."""
        for row in (*reversed(self.rows_of("begin")), self.record):
            if length := number_of(row.get("epoch_length")):
                return length
        for row in reversed(self.rows_of("epoch")):
            epoch = number_of(row.get("epoch"))
            if epoch and (iteration := number_of(row.get("iteration"))):
                return iteration / epoch
        return None

    @property
    def started(self) -> float | None:
        """When it was first started, Unix seconds."""
        return _unix_time(self.record.get("started"))

    @property
    def last_sign(self) -> float | None:
        """The last sign of life, Unix seconds."""
        return _last_sign(self.record, self.tail)

    @property
    def seconds_left(self) -> float | None:
        """Seconds that it will still take; None where it does not run or nothing says it."""
        return seconds_left(self.tail, self.max_epochs, self.now) if self.state == RUNNING else None

    @cached_property
    def structures(self) -> tuple[str, ...]:
        """The names of its structures in the order of the label map, without the background."""
        labels = self._json(self.folder / "label_map.json")
        return tuple(str(name) for index, name in sorted(labels.items(), key=_label_order) if str(index) != "0")

    @cached_property
    def previews(self) -> dict[str, dict[int, Path]]:
        """The files in `previews/` by case and epoch."""
        previews: dict[str, dict[int, Path]] = {}
        for path in sorted((self.folder / "previews").glob("*.png")):
            if match := _PREVIEW.match(path.name):
                previews.setdefault(match[2], {})[int(match[1])] = path
        return previews

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each part that is missing or cannot be read."""
        _ = (self.record, self.rows, self.config, self.structures)
        missing = [
            f"{name} is missing, and with it {content}."
            for name, content in _PARTS.items()
            if not (self.folder / name).exists()
        ]
        return (*missing, *self._damage.values())

    def summary(self) -> dict[str, Any]:
        """Return the facts of `medseg runs list --json`; None where one is not known, times in Unix seconds."""
        names = ("name", "bundle", "state", "epoch", "max_epochs", "iteration", "seconds_left", "started", "last_sign")
        return {
            **{name: getattr(self, name) for name in names},
            "folder": str(self.folder),
            "best_dice": self.best.dice if self.best else None,
            "best_epoch": self.best.epoch if self.best else None,
            "pid": self.record.get("pid"),
            "host": self.record.get("host"),
            "error": self.error,
        }

    def network(self, trust: bool = False) -> torch.nn.Module:
        """Return the trained network with its best weights, without any transform around it.

        Args:
            trust: see `medseg.load`.
        """
        import medseg  # the front door: this room is below all that is needed for this

        network: torch.nn.Module = medseg.load(self.folder, trust=trust).network
        return network

    def report(self, path: str | Path | None = None) -> Path:
        """Write the run as one HTML page and return its path.

        Args:
            path: the file. Default: `report.html` in the run's folder.
        """
        import medseg

        return medseg.report.save_run_page(path or self.folder / "report.html", self)

    def _json(self, path: Path) -> dict[str, Any]:
        """Return the object in a file; empty, with a note, where it is damaged."""
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            self._damage[path.name] = f"{path.name} cannot be read: {error}."
            return {}
        if isinstance(content, dict):
            return content
        self._damage[path.name] = f"{path.name} holds no JSON object and is left out."
        return {}


def run_state(folder: str | Path, record: Mapping[str, Any] | None = None, now: float | None = None) -> str:
    """Return the state of a run: `state_of` its record, but `died` where another machine fell silent over it.

    A machine that vanished leaves `running` behind for good, and its process cannot be looked for from here.

    Args:
        folder: the run's folder.
        record: its record. Default: read again.
        now: the time from which the silence is counted, Unix seconds.

    Raises:
        RunError: the record cannot be read.
    """
    record = read_record(folder) if record is None else record
    state = state_of(record)
    if state != RUNNING or is_local(record):
        return state
    silence = (time.time() if now is None else now) - (_last_sign(record, read_tail(folder)) or 0.0)
    return DIED if silence >= 60 * SILENT_MINUTES else state


def seconds_left(rows: Sequence[Row], max_epochs: int | None, now: float) -> float | None:
    """Return the seconds that a run will still take: by its latest row that says so, else by the pace of its epochs.

    Args:
        rows: the latest, oldest first.
        max_epochs: the epochs that it is to run.
        now: the time to count from, Unix seconds.

    Example:
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


def _rows_of_history(history: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of epochs and validations that `training_history.json` holds."""
    epochs = history.get("epochs")
    for entry in epochs if isinstance(epochs, list) else ():
        if not isinstance(entry, dict):
            continue
        yield {"kind": "epoch", **{key: value for key, value in entry.items() if not isinstance(value, dict)}}
        if entry.get("mean_dice") is not None or entry.get("dice"):
            yield {"kind": "validation", **entry}


def _last_sign(record: Mapping[str, Any], rows: Sequence[Row]) -> float | None:
    """Return the latest time that was written down; not the times of the files, which are new in a copy."""
    signs = (_unix_time(record.get("updated")), _latest(rows, "time"))
    return max((sign for sign in signs if sign is not None), default=None)


def _latest(rows: Sequence[Row], key: str) -> Any:
    return next((row[key] for row in reversed(rows) if row.get(key) is not None), None)


def _label_order(item: tuple[str, Any]) -> tuple[int, str]:
    return (int(item[0]), "") if item[0].isdecimal() else (10**9, item[0])


def _unix_time(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp() if text else None
    except ValueError:
        return None
