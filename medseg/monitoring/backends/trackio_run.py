"""trackio: a dashboard on one's own machine, its files beside the runs, no account and no network."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.monitoring.about import about
from medseg.monitoring.backends.live_run import LiveRun
from medseg.monitoring.payload import Payload
from medseg.monitoring.settings import Settings


class TrackioRun(LiveRun):
    """A run in trackio's files.

    Not `trackio.init`, which finds a run to go on with by its name alone, and two runs may have the same name.

    Args:
        settings: whose; `store` is the folder, which trackio takes when it is imported first.
        folder: the run's folder.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        prepare_environment(str(settings.store))
        import trackio
        from trackio.sqlite_storage import SQLiteStorage

        project = str(settings.project)
        SQLiteStorage.validate_project_name(project)
        Path(str(settings.store)).mkdir(parents=True, exist_ok=True)
        self._database = Path(SQLiteStorage.get_project_db_path(project))
        self._id, self._there = settings.id, self._steps(settings.id)
        told = {key: value for key, value in about(folder).items() if not key.startswith("_")}
        told |= {key: getattr(settings, key) for key in ("notes", "job_type") if getattr(settings, key)}
        if settings.tags:
            told["tags"] = list(settings.tags)
        run = trackio.Run(
            url=None,
            project=project,
            client=None,
            name=settings.name,
            run_id=settings.id,
            group=settings.job_type,
            config=told,
            existing_runs=[],
            initial_last_step=max(self._there, default=-1),
        )
        super().__init__(folder, settings.images, trackio, run)

    def _steps(self, run: str) -> set[int]:
        """The rows that are in trackio's database."""
        from trackio import fragments, utils

        if utils.get_storage_mode() == "jsonl":  # a network file system: what waits there belongs to it, too
            fragments.import_inbox_dir()
        if not self._database.is_file():
            return set()
        with contextlib.closing(sqlite3.connect(self._database, timeout=30)) as database:
            try:
                return {int(step) for (step,) in database.execute("SELECT step FROM metrics WHERE run_id = ?", (run,))}
            except sqlite3.OperationalError:  # the table is not there yet
                return set()

    def has(self, number: int) -> bool:
        """Whether the row is in the database."""
        return number in self._there

    def log(self, number: int, row: Mapping[str, Any], values: dict[str, Any]) -> None:
        """Queue it; trackio's own thread writes twice a second."""
        self.run.log(values, step=number)
        self._there.add(number)

    def tell(self, number: int, told: Payload) -> None:
        """Alerts stand on the dashboard's page of alerts; it has no summary beside the last values."""
        for level, title, text in told.alerts:
            kind = self.kinds.AlertLevel.ERROR if level == "error" else self.kinds.AlertLevel.WARN
            self.run.alert(title, text, level=kind, step=number)

    def finish(self) -> None:
        """Write what is queued.

        Raises:
            OSError: rows are missing afterwards, which trackio itself only warns of.
        """
        self.run.finish()
        missing = len(self._there - self._steps(self._id))
        if missing:
            raise OSError(f"trackio could not write {missing} rows to {self._database}")


def prepare_environment(store: str) -> None:
    """Before trackio is imported: where its files are, and that nothing of it goes out."""
    os.environ["TRACKIO_DIR"] = store
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1", GRADIO_ANALYTICS_ENABLED="0")
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID", "TRACKIO_DATASET_ID", "GRADIO_SHARE"):
        os.environ.pop(name, None)
    for name in ("NO_PROXY", "no_proxy"):  # the page is on this machine, whatever proxy there is
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))
