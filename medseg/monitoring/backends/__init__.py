"""The trackers behind one interface, which is W&B's: log, Image, Histogram, alert, summary, finish.

They are loaded when they are used, and only ever in the feed's process.
"""

from __future__ import annotations

from pathlib import Path

from medseg.monitoring.backends.live_run import LiveRun
from medseg.monitoring.settings import WANDB, Settings

__all__ = ["LiveRun", "open_run"]


def open_run(settings: Settings, folder: Path, need_server: bool = False) -> LiveRun:
    """A run at the tracker that the settings name, new or gone on with.

    Args:
        settings: filled, see `Settings.filled`; any backend but `off`.
        folder: the run's folder.
        need_server: whether W&B without its server is an error instead of an offline file.

    Raises:
        RunError: the tracker cannot be used.
    """
    if settings.backend == WANDB:
        from medseg.monitoring.backends.wandb_run import WandbRun

        return WandbRun(settings, folder, need_server)
    from medseg.monitoring.backends.trackio_run import TrackioRun

    return TrackioRun(settings, folder)
