"""The trackers behind one interface, which is W&B's: log, Image, Histogram, alert, summary, finish.

They are imported when they are used, and only ever in the uploader's process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.monitoring.settings import WANDB, Settings
from medseg.monitoring.tracker_row import TrackerRow, tracker_row

__all__ = ["LiveRun", "open_run"]


class LiveRun(ABC):
    """A run at a tracker, whichever it is; both have the same names for images, histograms and alerts.

    Args:
        folder: the run's folder, in which the images lie.
        images: False to send no images.
        tracker: the tracker's module, for `Image` and `Histogram`.
        run: an object with `log(values, step)`.
    """

    mode = "local"
    url: str | None = None
    why: str | None = None  # why it is offline though it was to be online

    def __init__(self, folder: Path, images: bool, tracker: Any, run: Any) -> None:
        self.folder = folder
        self.images = images
        self.tracker = tracker
        self.run = run
        self.images_sent = 0

    @abstractmethod
    def has(self, number: int) -> bool:
        """Return True if the tracker has this row already."""

    def send(self, number: int, row: Mapping[str, Any]) -> bool:
        """Send a row and return True, unless the tracker has it."""
        if self.has(number):
            return False
        content = tracker_row(row)
        values: dict[str, Any] = dict(content.values)
        for key, file, caption in content.images if self.images else ():
            path = self.folder / file
            if path.is_file():
                values[key] = self.tracker.Image(str(path), caption=caption)
                self.images_sent += 1
        for key, (counts, edges) in content.histograms.items():
            values[key] = self.tracker.Histogram(np_histogram=(counts, edges))
        self.log(number, row, values)
        self.annotate(number, content)
        return True

    @abstractmethod
    def log(self, number: int, row: Mapping[str, Any], values: dict[str, Any]) -> None:
        """Send the values of a row as step `number`."""

    @abstractmethod
    def annotate(self, number: int, content: TrackerRow) -> None:
        """Send its alerts and its summary."""

    @abstractmethod
    def finish(self) -> None:
        """Wait until everything has arrived.

        Raises:
            OSError: it has not.
        """


def open_run(settings: Settings, folder: Path, need_server: bool = False) -> LiveRun:
    """Return a run at the tracker of the settings, new or resumed.

    Args:
        settings: filled, see `Settings.filled`; any backend but `off`.
        folder: the run's folder.
        need_server: True if W&B without its server is an error instead of an offline file.

    Raises:
        MissingExtraError: the tracker is not installed.
        RunError: the tracker cannot be used.
    """
    if settings.backend == WANDB:
        from medseg.monitoring.backends.wandb_run import WandbRun

        return WandbRun(settings, folder, need_server)
    from medseg.monitoring.backends.trackio_run import TrackioRun

    return TrackioRun(settings, folder)
