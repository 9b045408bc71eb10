"""Send a copy of a run to another place while it trains."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
import uuid
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

from medseg.atomic import move, relative_path
from medseg.remote import PARTIAL, open_filesystem, run_with_timeout
from medseg.runs.metrics_log import append_row
from medseg.runs.record import RECORD

logger = logging.getLogger(__name__)

# Sent with each checkpoint: small files that, together with it, are all that a run needs to resume.
_ALONG = ("*.jsonl", "*.log", "label_map.json", "training_history.json", "LICENSE", "configs/*", "docs/*",
          "monitor/*.json", "previews/*.png", RECORD)  # fmt: skip
_CHECKPOINTS = "checkpoints"
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0
ANSWERS = 60.0  # seconds in which a place must answer
_SNAPSHOTS = ".backup"
FIX = "Check it, or leave out backup."


class Backup:
    """Keep a copy of a run in another place: a folder, `s3://`, `sftp://`, whatever fsspec knows.

    A thread sends the files, so training never waits for the network. Of a file that is written again before it was
    sent, only the newest version is sent. Each file is sent under a temporary name, its size is compared, and then it
    is moved: a file with its final name is complete. Failures are retried with growing pauses, and logged once.

    The copy is in `<url>/<bundle>/<name of the run's folder>`; `medseg.training.restore.fetch` brings it back.

    Args:
        url: where the copies of runs go.
        folder: the folder of the run.
        timeout: seconds that the end of a run waits for files that are still to be sent.
        hurry: the same where the run was interrupted, or failed.
        check_timeout: seconds in which the place must answer at the start.
    """

    def __init__(
        self,
        url: str,
        folder: str | Path,
        timeout: float = 600.0,
        hurry: float = 4.0,
        check_timeout: float = ANSWERS,
    ) -> None:
        self.url = url
        self.folder = Path(folder)
        self.timeout = timeout
        self.hurry = hurry
        self.check_timeout = check_timeout
        self.location, path = run_with_timeout(
            check_timeout, lambda: open_filesystem(url, f"backup={url}", FIX), f"backup={url}", FIX
        )
        self.target = f"{path}/{self.folder.parent.name}/{self.folder.name}"
        self._queue: dict[str, None] = {}  # names of files, in the order in which they were queued
        self._sent: dict[str, tuple[int, int]] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._busy = False
        self._over = False
        self.snapshots = os.name == "nt"  # Windows cannot replace a file that is being read
        self._outside = False  # whether a file outside of the folder was reported
        self._to_report: list[str] = []
        self._failing: set[str] = set()
        self._thread: threading.Thread | None = None
        self._pause = _FIRST_PAUSE

    def check(self) -> None:
        """Check that the place can be written, with a small file that is removed again.

        Raises:
            OutputError: it cannot, or does not answer in `check_timeout` seconds.
        """

        def probe() -> None:
            path = f"{self.target.rpartition('/')[0]}/.writable.{uuid.uuid4().hex[:8]}"
            self.location.makedirs(path.rpartition("/")[0], exist_ok=True)
            self.location.pipe_file(path, b"medseg")
            self.location.rm_file(path)

        run_with_timeout(self.check_timeout, probe, f"backup={self.url}", FIX)

    def __enter__(self) -> Backup:
        """Start sending."""
        logger.info("A copy of this run is kept in %s", self.location.unstrip_protocol(self.target))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send the remaining files, within the timeout."""
        self.close(self.timeout if kind is None else self.hurry)

    def send(self, path: str | Path) -> None:
        """Queue a file of the run, with the small files that changed; never waits, never raises."""
        self._report()
        inside = self._name(Path(path))
        if inside is None and not self._outside:
            self._outside = True
            logger.warning("%s lies outside of %s: no copy of it is kept in %s", path, self.folder, self.url)
        with self._changed:
            for name in [*self._along(), *([inside] if inside is not None else [])]:
                self._queue.pop(name, None)
                self._queue[name] = None
                if self.snapshots:
                    self._snap(name)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="medseg-backup", daemon=True)
                self._thread.start()

    def close(self, timeout: float) -> bool:
        """Send the remaining files in at most `timeout` seconds; return whether all were sent."""
        if self._thread is None and not self.folder.is_dir():
            return True
        self.send(self.folder / RECORD)
        until = time.monotonic() + timeout
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            while (self._queue or self._busy) and time.monotonic() < until:
                self._changed.wait(min(0.5, max(0.0, until - time.monotonic())))
            left, self._over = list(self._queue), True
        self._report()
        shutil.rmtree(self.folder / _SNAPSHOTS, ignore_errors=True)
        if left or self._busy:
            logger.warning(
                "The copy in %s is not up to date: %d files were not sent in time", self.url, max(1, len(left))
            )
        return not left and not self._busy

    def _name(self, path: Path) -> str | None:
        """Return the path inside the run's folder, which may itself be a link; None for a file outside."""
        for resolve in (os.path.abspath, os.path.realpath):
            name = relative_path(resolve(path), resolve(self.folder))
            if not name.startswith("..") and not Path(name).is_absolute():  # which it is on another drive
                return name
        return None

    def _along(self) -> list[str]:
        paths = [path for pattern in _ALONG for path in sorted(self.folder.glob(pattern)) if path.is_file()]
        names = [path.relative_to(self.folder).as_posix() for path in paths if PARTIAL not in path.name]
        return [name for name in names if self._sent.get(name) != _stamp(self.folder / name)]

    def _snap(self, name: str) -> None:
        """Copy a file to a folder of this class's own; called while the thread is not about to open it."""
        with contextlib.suppress(OSError):
            copy = self._source(name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            partial = copy.with_name(f".{copy.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
            shutil.copy2(self.folder / name, partial)
            move(partial, copy)

    def _source(self, name: str) -> Path:
        return self.folder / _SNAPSHOTS / name if self.snapshots else self.folder / name

    def _work(self) -> None:
        """Send one file after the other until the run is closed and all are sent; runs in the thread."""
        self._tidy()
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    self._changed.wait()
                if not self._queue or self._over:
                    return
                name = next(iter(self._queue))
                del self._queue[name]
                self._busy = True
            try:
                self._send(name)
                if name in self._failing or not self._failing:
                    self._pause = _FIRST_PAUSE
                if self._failing and not self._failing - {name}:
                    logger.info("The copy in %s can be written again", self.url)
                self._failing.discard(name)
            except Exception as error:
                self._fail(name, error)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _fail(self, name: str, error: Exception) -> None:
        if not self._failing:
            self._to_report.append(f"{type(error).__name__}: {error}".splitlines()[0])
        self._failing.add(name)
        with self._changed:
            self._queue[name] = None  # at the end of the queue, so that it delays no other file
            if not self._closing:
                self._changed.wait_for(lambda: self._closing, self._pause)
        if self._closing:
            time.sleep(min(self._pause, 0.2))
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _send(self, name: str) -> None:
        source = self._source(name)
        if not source.is_file():
            return  # removed since: newer checkpoints replaced it
        parent, _, last = f"{self.target}/{name}".rpartition("/")
        partial = f"{parent}/.{last}.{uuid.uuid4().hex[:8]}{PARTIAL}"
        self.location.makedirs(parent, exist_ok=True)
        stamp = _stamp(source)
        try:
            size = 0
            with source.open("rb") as file, self.location.open(partial, "wb") as copy:
                while chunk := file.read(2**22):
                    size += copy.write(chunk)
            arrived = self.location.info(partial)["size"]
            if arrived != size:
                raise OSError(f"{name} arrived with {arrived} of {size} bytes")
            self._move(partial, f"{parent}/{last}")
        except BaseException:
            with contextlib.suppress(Exception):
                self.location.rm_file(partial)
            raise
        self._sent[name] = stamp
        if parent.endswith(f"/{_CHECKPOINTS}"):
            self._thin_out(parent)

    def _move(self, partial: str, final: str) -> None:
        """Move a file to its final name, in one step where the file system can do that."""
        if "file" in _protocols(self.location):
            move(partial, final)
            return
        try:
            self.location.mv(partial, final)
        except Exception:  # some file systems, such as SMB, do not replace an existing file
            if not self.location.exists(final):
                raise
            aside = f"{partial.removesuffix(PARTIAL)}.before{PARTIAL}"
            self.location.mv(final, aside)
            try:
                self.location.mv(partial, final)
            except Exception:
                self.location.mv(aside, final)
                raise
            self.location.rm_file(aside)

    def _thin_out(self, folder: str) -> None:
        """Remove checkpoints that the run no longer keeps."""
        self.location.invalidate_cache(folder)
        for path in self.location.ls(folder, detail=False):
            name = PurePosixPath(path).name
            if name.startswith("epoch_") and not (self.folder / _CHECKPOINTS / name).exists():
                self.location.rm_file(path)

    def _tidy(self) -> None:
        """Remove temporary files of a process that was killed while it sent."""
        with contextlib.suppress(Exception):
            for path in self.location.find(self.target):
                if path.endswith(PARTIAL):
                    self.location.rm_file(path)

    def _report(self) -> None:
        """Warn of failures, from the thread that trains: the rows of a run have one writer."""
        while self._to_report:
            reason = self._to_report.pop(0)
            consequence = "Training continues, and sending is retried."
            logger.warning("The copy in %s cannot be written (%s). %s", self.url, reason, consequence)
            text = f"The copy of the run cannot be written, the log says why. {consequence}"
            with contextlib.suppress(OSError):
                row = {"epoch": None, "iteration": None, "level": "warning", "title": "Backup fails", "text": text}
                append_row(self.folder, {"kind": "warning", "time": round(time.time(), 3), **row})


def _protocols(location: Any) -> tuple[str, ...]:
    return (location.protocol,) if isinstance(location.protocol, str) else tuple(location.protocol)


def _stamp(path: Path) -> tuple[int, int]:
    with contextlib.suppress(OSError):
        state = path.stat()
        return state.st_mtime_ns, state.st_size
    return (0, -1)
