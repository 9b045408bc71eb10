"""The rows of a file that grows, each of them once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.records import ROWS, parse_row


class Tail:
    """What is new in a run's `metrics.jsonl` since the last look; numbered as `medseg.records.read_rows` does.

    The file is read from where the last look ended: one of a run of days would else be read whole each time.

    Args:
        folder: the run's folder.
        start: rows before this one are passed over.
    """

    def __init__(self, folder: str | Path, start: int = 0) -> None:
        self.path, self.start = Path(folder) / ROWS, start
        self.lines = 0  # how many were read
        self._offset = 0

    def new(self, limit: int = 500) -> list[tuple[int, dict[str, Any]]]:
        """Up to `limit` rows that are whole, with their numbers; a line that is no row is counted and left out."""
        found: list[tuple[int, dict[str, Any]]] = []
        try:
            if self.path.stat().st_size <= self._offset:
                return found
        except OSError:
            return found
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n") or len(found) >= limit:
                    break
                number, self.lines, self._offset = self.lines, self.lines + 1, self._offset + len(line)
                row = parse_row(line) if number >= self.start else None
                if row is not None:
                    found.append((number, row))
        return found
