"""What a long job has finished, one JSON line for each case, so that it goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medseg.errors import OutputError


class Journal:
    """The finished cases of a job that writes files, with a key of what each was made from.

    A case counts as finished if it was recorded under the same key and its files have the sizes they had then;
    files are moved into place whole (`medseg.atomic`), so that a size says enough. Lines are only ever
    appended; one that was being written when the process died is passed over.

    Args:
        path: the journal's file; made at the first `add`.

    >>> Journal(Path("nowhere.jsonl")).get("s0001", "key", [])
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, dict[str, Any]] = {}
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
            try:
                entry = json.loads(line)
                self._entries[entry["id"]] = entry
            except (ValueError, KeyError, TypeError):
                continue

    def get(self, id: str, key: str, files: Iterable[Path]) -> Any:
        """What was noted of a case that is finished and still there; else None."""
        entry = self._entries.get(id, {})
        return entry["note"] if entry.get("key") == key and entry.get("sizes") == _sizes(files) else None

    def add(self, id: str, key: str, files: Iterable[Path], note: Any) -> None:
        """Record that a case is finished.

        Raises:
            OutputError: the journal cannot be written.
        """
        entry = {"id": id, "key": key, "sizes": _sizes(files), "note": note}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps(entry))  # a new line first: the last one may have been cut short
        except OSError as error:
            raise OutputError(
                self.path, "must be writable", str(error), "Free space or choose another place."
            ) from error
        self._entries[id] = entry


def _sizes(files: Iterable[Path]) -> list[int]:
    return [path.stat().st_size if path.is_file() else -1 for path in files]
