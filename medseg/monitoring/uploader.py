"""The process that brings the rows of a run to its tracker: `python -m medseg.monitoring.uploader RUN_FOLDER`.

It follows `metrics.jsonl` and sends each row as the step of its number, so a row arrives once however often this
process is started. It ends when the run has ended and everything is sent. The run knows nothing of it: neither a
network nor a tracker can hold it up.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import filelock

from medseg.atomic import write_json
from medseg.errors import RunError
from medseg.monitoring.backends import LiveRun, open_run
from medseg.monitoring.dashboard import Dashboard, project_link
from medseg.monitoring.settings import FOLDER, LOCK, OFF, SETTINGS, STATE, TRACKIO, Settings
from medseg.runs.metrics_log import NewRows
from medseg.runs.record import RUNNING, read_record, state_of, this_process

logger = logging.getLogger(__name__)

POLL, LOOK = 0.5, 10.0  # seconds between looks; at the dashboard
PATIENCE = 660.0  # seconds for an earlier feed to end: W&B may take ten minutes for what is left
BUSY = 3  # exit code: another feed is at this run


class Feed:
    """One tracker of one run.

    Args:
        folder: the run's folder.
        settings: filled.
        once: send what is there and end, whether the run goes on or not.
        need_server: whether W&B without its server is an error.
    """

    def __init__(self, folder: Path, settings: Settings, once: bool = False, need_server: bool = False) -> None:
        self.folder, self.settings, self.once, self.need_server = folder, settings, once, need_server
        self.page = Dashboard(settings.store or folder) if self._has_page() else None
        self._state: dict[str, Any] = {
            **{name: getattr(settings, name) for name in ("backend", "project", "name", "id")},
            **{"mode": None, "url": None, "why": None, "error": None},
            **{"rows": 0, "sent": 0, "images": 0, "done": False, "started": time.time()},
            **this_process(),
        }
        self._looked, self._seen = 0.0, _stamp(folder)

    def _has_page(self) -> bool:
        return self.settings.backend == TRACKIO and self.settings.dashboard and not self.once

    def run(self) -> int:
        """Send rows until there are no more; the exit code."""
        self.say()
        try:
            live = open_run(self.settings, self.folder, self.need_server)
            self.say(mode=live.mode, url=live.url, why=live.why)
            try:
                self._send(live)
            finally:
                live.finish()
                if self.page is not None:
                    self.page.close()
        except Exception as error:
            logger.exception("The tracker cannot go on")
            self.say(error=str(error) or type(error).__name__, done=True)
            return 1
        self.say(done=True)
        return 0

    def _send(self, live: LiveRun) -> None:
        log = NewRows(self.folder)
        while True:
            ended = self.once or self._ended()  # asked first: what was written before the end is still sent
            rows = log.read()
            sent = sum(live.send(number, row) for number, row in rows)
            if rows:
                self.say(rows=log.lines, sent=self._state["sent"] + sent, images=live.pictures)
                continue
            if ended or not self._wanted():
                return
            self._serve_page()
            time.sleep(POLL)

    def _ended(self) -> bool:
        try:
            return state_of(read_record(self.folder)) != RUNNING
        except RunError:  # being written
            return False

    def _wanted(self) -> bool:
        """Whether this is still the tracker that somebody wants."""
        stamp = _stamp(self.folder)
        if stamp == self._seen:
            return True
        self._seen = stamp
        now = Settings.load(self.folder)
        return now is None or now.filled(self.folder).changed(configured=None) == self.settings.changed(configured=None)

    def _serve_page(self) -> None:
        if self.page is None or time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        url = self.page.ensure()
        link = project_link(url, str(self.settings.project)) if url else None
        if link != self._state["url"]:
            self.say(url=link)

    def say(self, **fields: Any) -> None:
        """Write down how it stands."""
        self._state |= {**fields, "updated": time.time()}
        write_json(self.folder / FOLDER / STATE, self._state)


def _stamp(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return (folder / FOLDER / SETTINGS).stat().st_mtime_ns
    return 0


def _stop(number: int, frame: Any) -> None:
    sys.exit(0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Feed the tracker of a run; the exit code."""
    parser = argparse.ArgumentParser(
        prog="medseg.monitoring.uploader", description="Bring a run's rows to its tracker."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--once", action="store_true", help="send what is there, and end")
    parser.add_argument("--backend", help="another tracker than the run's settings name")
    parser.add_argument("--need-server", action="store_true", help="W&B without its server is an error")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = given.folder.resolve()
    signal.signal(signal.SIGTERM, _stop)
    if hasattr(os, "nice"):
        os.nice(5)  # training comes first
    lock = filelock.FileLock(folder / FOLDER / LOCK)
    try:
        lock.acquire(timeout=0 if given.once else PATIENCE, poll_interval=0.2)
    except filelock.Timeout:
        logger.warning("Another process brings the rows of this run to a tracker")
        return BUSY
    try:
        kept = Settings.load(folder)
        settings = (kept or Settings()).filled(folder)
        if kept is None:
            settings.save(folder)  # the id is the run's for good
        if given.backend:
            settings = settings.changed(backend=given.backend)
        if settings.backend == OFF or not (settings.on or given.once):
            return 0
        return Feed(folder, settings, given.once, given.need_server).run()
    finally:
        lock.release()


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # a tracker that still waits for its server holds up nothing
