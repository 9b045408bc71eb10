"""trackio: a dashboard on one's own machine, its files beside the runs, no account and no network."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.monitoring.backends import LiveRun
from medseg.monitoring.settings import Settings
from medseg.monitoring.tracker_row import TrackerRow, tracker_config
from medseg.optional import require


class TrackioRun(LiveRun):
    """A run in trackio's files.

    Not `trackio.init`, which finds a run to resume by its name only, and two runs may have the same name.

    Args:
        settings: `store` is the folder of trackio's files, which trackio reads when it is first imported.
        folder: the run's folder.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        trackio: Any = load_trackio(str(settings.store))
        from trackio.sqlite_storage import SQLiteStorage

        project = str(settings.project)
        SQLiteStorage.validate_project_name(project)
        Path(str(settings.store)).mkdir(parents=True, exist_ok=True)
        self._database = Path(SQLiteStorage.get_project_db_path(project))
        self._id = settings.id
        self._steps = self._stored_steps()
        config = {key: value for key, value in tracker_config(folder).items() if not key.startswith("_")}
        config |= {key: getattr(settings, key) for key in ("notes", "job_type") if getattr(settings, key)}
        if settings.tags:
            config["tags"] = list(settings.tags)
        run = trackio.Run(
            url=None,
            project=project,
            client=None,
            name=settings.name,
            run_id=settings.id,
            group=settings.job_type,
            config=config,
            existing_runs=[],
            initial_last_step=max(self._steps, default=-1),
        )
        super().__init__(folder, settings.images, trackio, run)

    def _stored_steps(self) -> set[int]:
        """Return the rows that are in trackio's database."""
        from trackio import fragments, utils

        if utils.get_storage_mode() == "jsonl":  # on a network file system rows wait in files first
            fragments.import_inbox_dir()
        if not self._database.is_file():
            return set()
        with contextlib.closing(sqlite3.connect(self._database, timeout=30)) as database:
            try:
                rows = database.execute("SELECT step FROM metrics WHERE run_id = ?", (self._id,))
                return {int(step) for (step,) in rows}
            except sqlite3.OperationalError:  # the table does not exist yet
                return set()

    def has(self, number: int) -> bool:
        """Return True if the row is in the database."""
        return number in self._steps

    def log(self, number: int, row: Mapping[str, Any], values: dict[str, Any]) -> None:
        """Queue it; trackio's own thread writes twice a second."""
        self.run.log(values, step=number)
        self._steps.add(number)

    def annotate(self, number: int, content: TrackerRow) -> None:
        """Send its alerts; trackio has no summary beside the last values."""
        for level, title, text in content.alerts:
            kind = self.tracker.AlertLevel.ERROR if level == "error" else self.tracker.AlertLevel.WARN
            self.run.alert(title, text, level=kind, step=number)

    def finish(self) -> None:
        """Write what is queued.

        Raises:
            OSError: rows are missing afterwards, of which trackio itself only warns.
        """
        self.run.finish()
        missing = len(self._steps - self._stored_steps())
        if missing:
            raise OSError(f"trackio could not write {missing} rows to {self._database}")


def load_trackio(store: str) -> Any:
    """Import trackio for the files in this folder, so that nothing is sent away.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ["TRACKIO_DIR"] = store
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1", GRADIO_ANALYTICS_ENABLED="0")
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID", "TRACKIO_DATASET_ID", "GRADIO_SHARE"):
        os.environ.pop(name, None)
    for name in ("NO_PROXY", "no_proxy"):  # the page is on this machine, whatever proxy there is
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))
    return require("trackio", extra="monitor")
