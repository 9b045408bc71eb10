"""A copy of a run off the machine, sent while it trains."""

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

from medseg.remote import PARTIAL, open_filesystem, run_with_timeout
from medseg.runs.metrics_log import append_row
from medseg.runs.record import RECORD

logger = logging.getLogger(__name__)

# What goes along with each checkpoint: small, and together with it all that a run needs to go on.
_ALONG = ("*.jsonl", "*.log", "label_map.json", "training_history.json", "LICENSE", "configs/*", "docs/*",
          "monitor/*.json", "previews/*.png", RECORD)  # fmt: skip
_CHECKPOINTS = "checkpoints"
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0
ANSWERS = 60.0  # seconds that a place is given to answer
_SNAPSHOTS = ".backup"
FIX = "Check it, or leave out backup."


class Backup:
    """Keep a copy of a run in another place: a folder, `s3://`, `sftp://`, whatever fsspec knows.

    Files are sent by a thread of its own, so training never waits for the network. Of a file that is written again
    before it was sent, only the newest is sent. Each is sent under another name, its size is compared, and it is moved
    then: what has its final name there is whole. What fails is tried again, with growing pauses, and said once.

    The copy lies in `<url>/<bundle>/<name of the run's folder>`; `medseg.training.restore.fetch` brings it back.

    Args:
        url: where the copies of runs go.
        folder: the folder of the run.
        timeout: seconds that the end of a run waits for what is still to be sent.
        hurry: the same where the run was interrupted, or failed.
        check_timeout: seconds that the place is given to answer at the start.
    """

    def __init__(
        self,
        url: str,
        folder: str | Path,
        timeout: float = 600.0,
        hurry: float = 4.0,
        check_timeout: float = ANSWERS,
    ) -> None:
        self.url, self.folder = url, Path(folder)
        self.timeout, self.hurry, self.check_timeout = timeout, hurry, check_timeout
        self.location, path = run_with_timeout(
            check_timeout, lambda: open_filesystem(url, f"backup={url}", FIX), f"backup={url}", FIX
        )
        self.target = f"{path}/{self.folder.parent.name}/{self.folder.name}"
        self._wanted: dict[str, None] = {}  # in the order in which they were asked for
        self._sent: dict[str, tuple[int, int]] = {}
        self._changed = threading.Condition()
        self._closing, self._busy, self._over = False, False, False
        self.snapshots = os.name == "nt"  # where a file that is being read cannot be replaced by a newer one
        self._outside, self._to_say = False, list[str]()
        self._failing = set[str]()
        self._thread: threading.Thread | None = None
        self._pause = _FIRST_PAUSE

    def check(self) -> None:
        """See that the place can be written, with a small file that is removed again.

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
        """Send what is left, for as long as there is time."""
        self.close(self.timeout if kind is None else self.hurry)

    def send(self, path: str | Path) -> None:
        """Have a file of the run sent, with all that has changed of what goes along; never waits, never raises."""
        self._say()
        inside = self._name(Path(path))
        if inside is None and not self._outside:
            self._outside = True
            logger.warning("%s lies outside of %s: no copy of it is kept in %s", path, self.folder, self.url)
        with self._changed:
            for name in [*self._along(), *([inside] if inside is not None else [])]:
                self._wanted.pop(name, None)
                self._wanted[name] = None
                if self.snapshots:
                    self._snap(name)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="medseg-backup", daemon=True)
                self._thread.start()

    def close(self, timeout: float) -> bool:
        """Send what is left, in at most `timeout` seconds; gives whether all was sent."""
        if self._thread is None and not self.folder.is_dir():
            return True
        self.send(self.folder / RECORD)
        until = time.monotonic() + timeout
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            while (self._wanted or self._busy) and time.monotonic() < until:
                self._changed.wait(min(0.5, max(0.0, until - time.monotonic())))
            left, self._over = list(self._wanted), True
        self._say()
        shutil.rmtree(self.folder / _SNAPSHOTS, ignore_errors=True)
        if left or self._busy:
            logger.warning(
                "The copy in %s is not up to date: %d files were not sent in time", self.url, max(1, len(left))
            )
        return not left and not self._busy

    def _name(self, path: Path) -> str | None:
        """The path in the run's folder, which may be a link to elsewhere there; None for what lies outside."""
        for given in (os.path.abspath, os.path.realpath):
            with contextlib.suppress(ValueError):  # another drive
                name = Path(os.path.relpath(given(path), given(self.folder))).as_posix()
                if not name.startswith(".."):
                    return name
        return None

    def _along(self) -> list[str]:
        found = [path for pattern in _ALONG for path in sorted(self.folder.glob(pattern)) if path.is_file()]
        names = [path.relative_to(self.folder).as_posix() for path in found if PARTIAL not in path.name]
        return [name for name in names if self._sent.get(name) != _stamp(self.folder / name)]

    def _snap(self, name: str) -> None:
        """Copy a file to where nobody writes but this; called while the thread is not about to open it."""
        with contextlib.suppress(OSError):
            copy = self._source(name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            partial = copy.with_name(f".{copy.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
            shutil.copy2(self.folder / name, partial)
            partial.replace(copy)

    def _source(self, name: str) -> Path:
        return self.folder / _SNAPSHOTS / name if self.snapshots else self.folder / name

    def _work(self) -> None:
        """What the thread does: one file after the other until the run is closed and all is sent."""
        self._tidy()
        while True:
            with self._changed:
                while not self._wanted and not self._closing:
                    self._changed.wait()
                if not self._wanted or self._over:
                    return
                name = next(iter(self._wanted))
                del self._wanted[name]
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
            self._to_say.append(f"{type(error).__name__}: {error}".splitlines()[0])
        self._failing.add(name)
        with self._changed:
            self._wanted[name] = None  # behind the others, which it must not hold up
            if not self._closing:
                self._changed.wait_for(lambda: self._closing, self._pause)
        if self._closing:
            time.sleep(min(self._pause, 0.2))
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _send(self, name: str) -> None:
        source = self._source(name)
        if not source.is_file():
            return  # removed since, for newer ones have taken its place
        parent, _, last = f"{self.target}/{name}".rpartition("/")
        partial = f"{parent}/.{last}.{uuid.uuid4().hex[:8]}{PARTIAL}"
        self.location.makedirs(parent, exist_ok=True)
        stamp = _stamp(source)
        try:
            size = 0
            with source.open("rb") as file, self.location.open(partial, "wb") as copy:
                while chunk := file.read(2**22):
                    size += copy.write(chunk)
            there = self.location.info(partial)["size"]
            if there != size:
                raise OSError(f"{name} arrived with {there} of {size} bytes")
            self._move(partial, f"{parent}/{last}")
        except BaseException:
            with contextlib.suppress(Exception):
                self.location.rm_file(partial)
            raise
        self._sent[name] = stamp
        if parent.endswith(f"/{_CHECKPOINTS}"):
            self._thin_out(parent)

    def _move(self, partial: str, final: str) -> None:
        """Put a file in its place in one step where the place has such a step, else by a copy that it makes itself."""
        if "file" in _protocols(self.location):
            Path(partial).replace(final)
            return
        try:
            self.location.mv(partial, final)
        except Exception:  # some places, SMB for one, move onto no file that is there
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
        """Remove what a process that was killed left half sent."""
        with contextlib.suppress(Exception):
            for path in self.location.find(self.target):
                if path.endswith(PARTIAL):
                    self.location.rm_file(path)

    def _say(self) -> None:
        """Warn of what failed, from the thread that trains, for the rows of a run have one writer."""
        while self._to_say:
            said = self._to_say.pop(0)
            what = "Training goes on, and it is tried again."
            logger.warning("The copy in %s cannot be written (%s). %s", self.url, said, what)
            text = f"The copy of the run cannot be written, the log says why. {what}"
            with contextlib.suppress(OSError):
                where = {"epoch": None, "iteration": None, "level": "warning", "title": "Backup fails", "text": text}
                append_row(self.folder, {"kind": "warning", "time": round(time.time(), 3), **where})


def _protocols(location: Any) -> tuple[str, ...]:
    return (location.protocol,) if isinstance(location.protocol, str) else tuple(location.protocol)


def _stamp(path: Path) -> tuple[int, int]:
    with contextlib.suppress(OSError):
        state = path.stat()
        return state.st_mtime_ns, state.st_size
    return (0, -1)
