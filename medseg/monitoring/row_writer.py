"""The rows that handlers add to the metrics log: what was recorded before a kill is not recorded again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from medseg.errors import OutputError
from medseg.runs.metrics_log import append_row, read_backwards
from medseg.runs.record import METRICS_LOG

_BY_EPOCH = ("epoch", "validation")


class RowWriter:
    """Append rows to a run's metrics log, those of `ONCE` once over the life of the run.

    Not a log: a row belongs to a batch or an epoch, and a run that resumes from an earlier checkpoint comes through
    the same ones again.

    Args:
        folder: the run's folder; made if need be.
    """

    ONCE = ("batch", "epoch", "validation", "histogram")

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._latest: dict[str, int] = {}  # epoch or iteration of the latest row, by kind
        self._files: set[str] = set()

    def resume(self, iteration: int) -> None:
        """Read what was recorded from this iteration on, where a trainer resumes from it.

        Only the end of the file is read, back to what came before.
        """
        self._latest = {}
        self._files = set()
        for row in read_backwards(self.folder):
            kind = row.get("kind")
            number = row.get("iteration")
            if not isinstance(kind, str) or not isinstance(number, int):
                continue
            if kind in self.ONCE:
                self._latest.setdefault(kind, _position(kind, row))
            elif kind == "image":
                self._files.add(str(row.get("file")))
            if kind in ("batch", "epoch") and number < iteration:
                return

    def add(self, kind: str, engine: Any, **fields: Any) -> bool:
        """Append a row of this epoch and iteration of a trainer; False where it is there already.

        Raises:
            OutputError: the file cannot be written.
        """
        state = engine.state
        head = {"kind": kind, "time": round(time.time(), 3), "epoch": int(state.epoch)}
        row = {**head, "iteration": int(state.iteration), **fields}
        if kind in self.ONCE:
            if _position(kind, row) <= self._latest.get(kind, -1):
                return False
            self._latest[kind] = _position(kind, row)
        elif kind == "image":
            if str(row["file"]) in self._files:
                return False
            self._files.add(str(row["file"]))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            append_row(self.folder, row)
        except OSError as error:
            fix = "Free space, and resume the run."
            raise OutputError(self.folder / METRICS_LOG, "the file cannot be written", str(error), fix) from error
        return True


def _position(kind: str, row: dict[str, Any]) -> int:
    return int(row["epoch" if kind in _BY_EPOCH else "iteration"])
