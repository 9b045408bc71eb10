"""The process that brings the rows of a run to its tracker: `python -m medseg.monitoring.uploader RUN_FOLDER`.

It follows the metrics log and sends each row as the step of its number, so a row arrives once however often this
process is started. It ends when the run has ended and everything is sent. The run does not depend on it: neither a
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
from medseg.monitoring.control import BUSY
from medseg.monitoring.dashboard import Dashboard, project_link
from medseg.monitoring.settings import FOLDER, LOCK, OFF, SETTINGS, STATE, TRACKIO, Settings
from medseg.runs.metrics_log import NewRows
from medseg.runs.record import RUNNING, read_record, state_of, this_process

logger = logging.getLogger(__name__)

POLL = 0.5  # seconds between two looks at the metrics log
PAGE_POLL = 10.0  # and at the dashboard
PATIENCE = 660.0  # seconds for an earlier uploader to end: W&B may take ten minutes for the rest


class Uploader:
    """Bring the rows of one run to one tracker.

    Args:
        folder: the run's folder.
        settings: filled.
        once: send what there is and end, whether the run has ended or not.
        need_server: True if W&B without its server is an error.
    """

    def __init__(self, folder: Path, settings: Settings, once: bool = False, need_server: bool = False) -> None:
        self.folder = folder
        self.settings = settings
        self.once = once
        self.need_server = need_server
        has_page = settings.backend == TRACKIO and settings.dashboard and not once
        self.page = Dashboard(settings.store or folder) if has_page else None
        self._state: dict[str, Any] = {
            **{name: getattr(settings, name) for name in ("backend", "project", "name", "id")},
            **{"mode": None, "url": None, "why": None, "error": None},
            **{"rows": 0, "sent": 0, "images": 0, "done": False, "started": time.time()},
            **this_process(),
        }
        self._page_look = 0.0
        self._settings_time = _settings_time(folder)

    def run(self) -> int:
        """Send rows until there are no more; return the exit code."""
        self._write_state()
        try:
            live = open_run(self.settings, self.folder, self.need_server)
            self._write_state(mode=live.mode, url=live.url, why=live.why)
            try:
                self._send(live)
            finally:
                live.finish()
                if self.page is not None:
                    self.page.close()
        except Exception as error:
            logger.exception("The tracker failed")
            self._write_state(error=str(error) or type(error).__name__, done=True)
            return 1
        self._write_state(done=True)
        return 0

    def _send(self, live: LiveRun) -> None:
        log = NewRows(self.folder)
        while True:
            ended = self.once or self._run_has_ended()  # asked first: what was written before the end is still sent
            rows = log.read()
            sent = sum(live.send(number, row) for number, row in rows)
            if rows:
                self._write_state(rows=log.lines, sent=self._state["sent"] + sent, images=live.images_sent)
                continue
            if ended or self._settings_changed():
                return
            self._serve_page()
            time.sleep(POLL)

    def _run_has_ended(self) -> bool:
        try:
            return state_of(read_record(self.folder)) != RUNNING
        except RunError:  # it is being written
            return False

    def _settings_changed(self) -> bool:
        """Return True if the run was switched off or to another tracker."""
        changed = _settings_time(self.folder)
        if changed == self._settings_time:
            return False
        self._settings_time = changed
        new = Settings.load(self.folder)
        if new is None:
            return False
        return new.filled(self.folder).changed(configured=None) != self.settings.changed(configured=None)

    def _serve_page(self) -> None:
        if self.page is None or time.monotonic() - self._page_look < PAGE_POLL:
            return
        self._page_look = time.monotonic()
        url = self.page.ensure()
        link = project_link(url, str(self.settings.project)) if url else None
        if link != self._state["url"]:
            self._write_state(url=link)

    def _write_state(self, **fields: Any) -> None:
        self._state |= {**fields, "updated": time.time()}
        write_json(self.folder / FOLDER / STATE, self._state)


def _settings_time(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return (folder / FOLDER / SETTINGS).stat().st_mtime_ns
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring the rows of a run to its tracker; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="medseg.monitoring.uploader", description="Bring a run's rows to its tracker."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--once", action="store_true", help="send what there is, and end")
    parser.add_argument("--backend", help="another tracker than the one of the run's settings")
    parser.add_argument("--need-server", action="store_true", help="W&B without its server is an error")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = options.folder.resolve()
    # SystemExit unwinds through `finally`, so that what is queued is still written.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    if hasattr(os, "nice"):
        os.nice(5)  # training comes first
    lock = filelock.FileLock(folder / FOLDER / LOCK)
    try:
        lock.acquire(timeout=0 if options.once else PATIENCE, poll_interval=0.2)
    except filelock.Timeout:
        logger.warning("Another process brings the rows of this run to a tracker")
        return BUSY
    try:
        saved = Settings.load(folder)
        settings = (saved or Settings()).filled(folder)
        if saved is None:
            settings.save(folder)  # the id is the run's for good
        if options.backend:
            settings = settings.changed(backend=options.backend)
        if settings.backend == OFF or not (settings.on or options.once):
            return 0
        return Uploader(folder, settings, options.once, options.need_server).run()
    finally:
        lock.release()


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # not sys.exit: threads of a tracker that still waits for its server would hold it up
