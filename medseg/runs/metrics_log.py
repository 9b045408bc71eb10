"""The metrics log of a run, `metrics.jsonl`: one JSON object a line, only ever appended to.

A row's number is the number of its line, whatever is wrong with the lines before it, so it names the same row for good.
A line that a kill cut short is left out by every reader.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medseg.runs.record import METRICS_LOG

Row = Mapping[str, Any]
_BLOCK = 1 << 16


def append_row(folder: str | Path, row: Row) -> None:
    """Append one row; after a line that a kill cut short, on a line of its own.

    Raises:
        ValueError: NaN or infinity, which are not JSON.
        OSError: the file cannot be written.
    """
    text = json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n"
    with (Path(folder) / METRICS_LOG).open("ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            text = text if file.read(1) == b"\n" else "\n" + text
        file.write(text.encode())


def read_rows(folder: str | Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows with their numbers, from line `start` on; a last line without its end is not a row yet."""
    path = Path(folder) / METRICS_LOG
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file):
            row = _parse(line) if number >= start and line.endswith(b"\n") else None
            if row is not None:
                yield number, row


def read_kind(folder: str | Path, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of one kind; much faster than reading all of them, for only these are parsed."""
    path = Path(folder) / METRICS_LOG
    mark = json.dumps(kind).encode()
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            row = _parse(line) if mark in line and line.endswith(b"\n") else None
            if row is not None and row.get("kind") == kind:
                yield row


def read_backwards(folder: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the rows from the last to the first, reading only as much of the file as is asked for.

    A last line that lacks nothing but its line end is a row here: the next `append_row` makes it one.
    """
    path = Path(folder) / METRICS_LOG
    if not path.is_file():
        return
    with path.open("rb") as file:
        end = file.seek(0, 2)
        remainder = b""  # the beginning of a line whose end is in the block after
        while end:
            start = max(0, end - _BLOCK)
            file.seek(start)
            first, *lines = (file.read(end - start) + remainder).split(b"\n")
            for line in reversed(lines):
                row = _parse(line)
                if row is not None:
                    yield row
            end = start
            remainder = first
        row = _parse(remainder)
        if row is not None:
            yield row


def read_tail(folder: str | Path, size: int = _BLOCK) -> list[dict[str, Any]]:
    """Return the rows in the last `size` bytes of the file, oldest first."""
    try:
        with (Path(folder) / METRICS_LOG).open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(0, end - size))
            lines = file.read().split(b"\n")
    except OSError:
        return []
    if end > size:
        lines = lines[1:]  # it began before the part that was read
    rows = [_parse(line) for line in lines[:-1]]
    return [row for row in rows if row is not None]


class NewRows:
    """Read what was appended since the last call; numbered as `read_rows` does.

    The file is read from where the last call ended, since that of a run of days is large.

    Args:
        folder: the run's folder.
        start: rows before this one are skipped.
    """

    def __init__(self, folder: str | Path, start: int = 0) -> None:
        self.path = Path(folder) / METRICS_LOG
        self.start = start
        self.lines = 0  # read so far
        self._offset = 0

    def read(self, limit: int = 500) -> list[tuple[int, dict[str, Any]]]:
        """Return up to `limit` new rows with their numbers; a damaged line is counted and left out."""
        rows: list[tuple[int, dict[str, Any]]] = []
        try:
            if self.path.stat().st_size <= self._offset:
                return rows
        except OSError:
            return rows
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n") or len(rows) >= limit:
                    break
                row = _parse(line) if self.lines >= self.start else None
                if row is not None:
                    rows.append((self.lines, row))
                self.lines += 1
                self._offset += len(line)
        return rows


def best_validation(rows: Iterable[Row]) -> Row | None:
    """Return the validation with the best mean Dice, the first of equals; None where nothing was validated.

    Args:
        rows: rows of any kind, in the order in which they were written.

    Example:
        >>> rows = [{"kind": "validation", "epoch": epoch, "mean_dice": dice} for epoch, dice in ((1, 0.7), (2, 0.5))]
        >>> best_validation(rows)["epoch"]
        1
    """
    best: Row | None = None
    best_dice = -math.inf
    for row in rows:
        dice = number_of(row.get("mean_dice")) if row.get("kind") == "validation" else None
        if dice is not None and dice > best_dice:
            best = row
            best_dice = dice
    return best


def number_of(value: object) -> float | None:
    """Return a value that was read as a number, None where it is not a finite one.

    Example:
        >>> number_of(2), number_of("2"), number_of(float("nan"))
        (2.0, None, None)
    """
    if type(value) is float:
        return value if math.isfinite(value) else None
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else None


def finite(value: Any, digits: int | None = None) -> float | None:
    """Return a value that is to be written as JSON has it: None for NaN and infinity.

    Example:
        >>> finite(float("nan")), finite(0.123456, 3)
        (None, 0.123)
    """
    number = math.nan if value is None else float(value)
    if not math.isfinite(number):
        return None
    return number if digits is None else round(number, digits)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
