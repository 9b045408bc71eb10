"""A prediction run as a run of its own: what each scan took, and how its mask looks."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.atomic import write_json
from medseg.monitoring.settings import FOLDER, OFF, STATE, Settings, read_state
from medseg.monitoring.starting import start
from medseg.monitoring.switching import wait_until_sent
from medseg.runs.metrics_log import append_row
from medseg.runs.record import FINISHED, RECORD, RUNNING, read_record, this_process

PLACE = ".monitor"
_WAIT = 20.0  # seconds at the end for the feed to send what is left


class InferenceLog:
    """Record a prediction run under `<output>/.monitor`, and show it.

    Not an Ignite handler: predictions run without an engine. Predicting more scans into the same output folder
    goes on with the same run.

    Args:
        output: where the masks go; the pictures beside them are shown.
        bundle: the bundle's name; its training runs are in the same project.
        backend: `trackio` or `wandb`.
        store: the folder of trackio's files.

    Raises:
        ConfigError: no such backend.
    """

    def __init__(self, output: str | Path, bundle: str, backend: str, store: str | Path) -> None:
        self.folder = Path(output) / PLACE
        self.bundle = bundle
        self._chosen = Settings.of({"backend": backend}).changed(
            job_type="inference", store=os.environ.get("TRACKIO_DIR") or str(store)
        )
        self._count = 0

    @property
    def printable(self) -> bool:
        """Whether a tracker is told at all."""
        return self._chosen.backend != OFF

    def start(self, scans: int) -> None:
        """Open the run, and start the process that shows it.

        Raises:
            OutputError: the folder cannot be written.
        """
        earlier = read_record(self.folder)
        began = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "bundle": self.bundle, "name": "predict"}
        self._write({**began, **earlier, **this_process(), "job_type": "inference", "state": RUNNING})
        kept, new = Settings.load(self.folder), self._chosen
        if kept is not None:
            new = new.changed(id=kept.id, name=kept.name, project=kept.project)
        day = time.strftime("%m%d-%H%M")
        new.changed(name=new.name or f"{self.bundle}-predict-{day}").filled(self.folder).save(self.folder)
        self._row("begin", resumed=bool(earlier), scans=scans)
        if self.printable:
            (self.folder / FOLDER / STATE).unlink(missing_ok=True)
            start(self.folder)

    def case(self, name: str, seconds: float, volumes: Mapping[str, float], picture: Path | None = None) -> None:
        """Record one scan.

        Args:
            name: the case; no path.
            seconds: what reading it and the network took.
            volumes: ml by structure.
            picture: a PNG in the output folder.
        """
        self._count += 1
        row: dict[str, Any] = {"case": name, "seconds": round(seconds, 3), "volume_ml": dict(volumes)}
        if picture is not None:
            row["file"] = f"../{picture.relative_to(self.folder.parent).as_posix()}"
        self._row("case", **row)

    def end(self, failed: int = 0) -> dict[str, Any]:
        """Close the run and let its feed send what is left, for a bounded time; what the feed says."""
        self._row("end", state=FINISHED, failed=failed)
        self._write({**read_record(self.folder), "state": FINISHED})
        if self.printable:
            until = time.monotonic() + _WAIT
            while not read_state(self.folder) and time.monotonic() < until:  # it has not begun yet
                time.sleep(0.1)
            wait_until_sent(self.folder, _WAIT)
        return read_state(self.folder)

    def _row(self, kind: str, **fields: Any) -> None:
        append_row(self.folder, {"kind": kind, "time": round(time.time(), 3), "iteration": self._count, **fields})

    def _write(self, record: Mapping[str, Any]) -> None:
        write_json(self.folder / RECORD, {**record, "updated": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
