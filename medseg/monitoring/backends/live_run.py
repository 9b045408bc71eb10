"""A run at a tracker, whichever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.monitoring.payload import Payload, payload


class LiveRun(ABC):
    """Hands rows to a tracker; both trackers have the same names for pictures, histograms and alerts.

    Args:
        folder: the run's folder, in which the pictures lie.
        images: whether pictures are sent.
        kinds: the tracker's module, for `Image` and `Histogram`.
        run: what has `log(values, step)`.
    """

    mode = "local"
    url: str | None = None
    why: str | None = None  # why it is not online, though it was to be

    def __init__(self, folder: Path, images: bool, kinds: Any, run: Any) -> None:
        self.folder, self.images, self.kinds, self.run = folder, images, kinds, run
        self.pictures = 0

    @abstractmethod
    def has(self, number: int) -> bool:
        """Whether the tracker has this row already."""

    def send(self, number: int, row: Mapping[str, Any]) -> bool:
        """Send a row, unless the tracker has it; whether it was sent."""
        if self.has(number):
            return False
        told = payload(row)
        values: dict[str, Any] = dict(told.values)
        for key, file, caption in told.images if self.images else ():
            path = self.folder / file
            if path.is_file():
                values[key] = self.kinds.Image(str(path), caption=caption)
                self.pictures += 1
        for key, (counts, edges) in told.histograms.items():
            values[key] = self.kinds.Histogram(np_histogram=(counts, edges))
        self.log(number, row, values)
        self.tell(number, told)
        return True

    @abstractmethod
    def log(self, number: int, row: Mapping[str, Any], values: dict[str, Any]) -> None:
        """Send what a row holds, as step `number`."""

    @abstractmethod
    def tell(self, number: int, told: Payload) -> None:
        """Send alerts, and what stands above the run."""

    @abstractmethod
    def finish(self) -> None:
        """See that everything is where it belongs."""
