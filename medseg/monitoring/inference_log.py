"""A prediction recorded as a run: the time and the volumes of each scan, and how its mask looks."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.monitoring.control import start, wait_until_sent
from medseg.monitoring.settings import FOLDER, OFF, STATE, Settings, read_state
from medseg.runs.metrics_log import append_row
from medseg.runs.record import FINISHED, RUNNING, read_record, this_process, write_record

LOG_FOLDER = ".monitor"
_WAIT = 20.0  # seconds for the uploader at the end


class InferenceLog:
    """Record predictions under `<output>/.monitor`, and show them.

    Not an Ignite handler: predictions run without an engine. Predicting more scans into the same output folder
    resumes the same run.

    Args:
        output: the folder of the masks; the images beside them are shown.
        bundle: the bundle's name; its training runs are in the same project.
        backend: `trackio` or `wandb`.
        store: the folder of trackio's files.

    Raises:
        ConfigError: there is no such tracker.
    """

    def __init__(self, output: str | Path, bundle: str, backend: str, store: str | Path) -> None:
        self.folder = Path(output) / LOG_FOLDER
        self.bundle = bundle
        store = os.environ.get("TRACKIO_DIR") or str(store)
        self._settings = Settings.of({"backend": backend}).changed(job_type="inference", store=store)
        self._count = 0

    @property
    def shown(self) -> bool:
        """True if a tracker shows it."""
        return self._settings.backend != OFF

    def start(self, scans: int) -> None:
        """Open the run, and start the process that shows it.

        Raises:
            OutputError: the folder cannot be written.
        """
        earlier = read_record(self.folder)
        new = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "bundle": self.bundle, "name": "predict"}
        write_record(self.folder, {**new, **earlier, **this_process(), "job_type": "inference", "state": RUNNING})
        saved = Settings.load(self.folder)
        settings = self._settings
        if saved is not None:
            settings = settings.changed(id=saved.id, name=saved.name, project=saved.project)
        name = settings.name or f"{self.bundle}-predict-{time.strftime('%m%d-%H%M')}"
        settings.changed(name=name).filled(self.folder).save(self.folder)
        self._add("begin", resumed=bool(earlier), scans=scans)
        if self.shown:
            (self.folder / FOLDER / STATE).unlink(missing_ok=True)
            start(self.folder)

    def case(self, name: str, seconds: float, volumes: Mapping[str, float], preview: Path | None = None) -> None:
        """Record one scan.

        Args:
            name: the case; not a path.
            seconds: for reading it and for the network.
            volumes: ml by structure.
            preview: a PNG in the output folder.
        """
        self._count += 1
        row: dict[str, Any] = {"case": name, "seconds": round(seconds, 3), "volume_ml": dict(volumes)}
        if preview is not None:
            row["file"] = f"../{preview.relative_to(self.folder.parent).as_posix()}"
        self._add("case", **row)

    def end(self, failed: int = 0) -> dict[str, Any]:
        """Close the run, wait for the uploader for a bounded time, and return its state."""
        self._add("end", state=FINISHED, failed=failed)
        write_record(self.folder, {**read_record(self.folder), "state": FINISHED})
        if self.shown:
            deadline = time.monotonic() + _WAIT
            while not read_state(self.folder) and time.monotonic() < deadline:  # it has not begun yet
                time.sleep(0.1)
            wait_until_sent(self.folder, _WAIT)
        return read_state(self.folder)

    def _add(self, kind: str, **fields: Any) -> None:
        append_row(self.folder, {"kind": kind, "time": round(time.time(), 3), "iteration": self._count, **fields})
