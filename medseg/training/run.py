"""The identity and the state of a run: its folder, and `run.json` in it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import filelock

from medseg import console
from medseg.atomic import writable_folder, write_json
from medseg.errors import RunError
from medseg.records import FAILED, FINISHED, INTERRUPTED, LOCK, LOG, RECORD, RUNNING, read_record, this_process

logger = logging.getLogger(__name__)

_PACKAGES = ("medseg", "torch", "monai", "pytorch-ignite", "numpy", "nibabel")


def identity(config: Mapping[str, Any], data: str) -> str:
    """The hash that two runs share if, and only if, they are the same work: effective config and data.

    Args:
        config: the effective config, without what says where things lie.
        data: the fingerprint of the data set.
    """
    text = json.dumps([config, data], sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_unfinished(folder: Path, identity: str) -> Path | None:
    """The latest run under `folder` with this identity that did not finish; None where there is none."""
    found = []
    for record in folder.glob(f"*/{RECORD}"):
        try:
            content = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            logger.warning("%s cannot be read, passed over", record)
            continue
        if content.get("identity") == identity and content.get("state") != FINISHED:
            found.append((content.get("started", ""), record.parent))
    return max(found)[1] if found else None


class Run:
    """One run: where it writes, who it is, and how it stands. Nothing is written before `train`.

    Args:
        folder: its own folder.
        identity: see `identity`.
        about: what else `run.json` shall say (bundle, name, command ...).
        furnish: called with the folder once it is made, to put configs and label map there.
    """

    def __init__(
        self, folder: Path, identity: str, about: Mapping[str, Any], furnish: Callable[[Path], None] | None = None
    ) -> None:
        self.folder, self.identity, self._about, self._furnish = folder, identity, dict(about), furnish

    @property
    def record(self) -> dict[str, Any]:
        """What `run.json` says now; empty before the run started."""
        return read_record(self.folder)

    def update(self, **fields: Any) -> None:
        """Change `run.json`, whole or not at all."""
        write_json(self.folder / RECORD, {**self.record, **fields, "updated": _now()})

    def train(self, trainer: Any) -> None:
        """Run a trainer as this run: the folder is made, locked and furnished, and its state is kept.

        Raises:
            RunError: another process is at it.
            OutputError: the folder cannot be written.
        """
        with self.running():
            trainer.run()
            self.update(epoch=trainer.state.epoch, iteration=trainer.state.iteration)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Hold the run: state `running` inside; `finished`, `interrupted` or `failed` after."""
        writable_folder(self.folder)
        lock = filelock.FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            pid = self.record.get("pid", "unknown")
            raise RunError(
                self.folder,
                "must be run by one process at a time",
                f"process {pid} at it",
                "Wait for it, stop it, or give this run another run_name.",
            ) from error
        try:
            self._begin()
            console.take_over(self.folder)
            with self._log():
                logger.info("Run folder: %s", self.folder)
                yield
                self.update(state=FINISHED, finished=_now(), error=None)
        except KeyboardInterrupt:
            self.update(state=INTERRUPTED, error=None)
            raise
        except BaseException as error:
            self.update(state=FAILED, error=f"{type(error).__name__}: {error}"[:2000])
            raise
        finally:
            lock.release()

    def _begin(self) -> None:
        started = self.record.get("started", _now())
        self.update(
            **self._about,
            identity=self.identity,
            state=RUNNING,
            started=started,
            **this_process(),
            versions=versions(),
            error=None,
        )
        if self._furnish is not None:
            self._furnish(self.folder)

    @contextlib.contextmanager
    def _log(self) -> Iterator[None]:
        handler = logging.FileHandler(self.folder / LOG, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        try:
            yield
        except BaseException:
            logger.exception("The run ended")
            raise
        finally:
            logging.getLogger().removeHandler(handler)
            handler.close()


def new_folder(parent: Path, name: str) -> Path:
    """A folder name that is not taken: `<parent>/<time>-<name>`."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    safe = "".join(letter if letter.isalnum() or letter in "-_.," else "-" for letter in name) or "run"
    folder, number = parent / f"{stamp}-{safe}", 2
    while folder.exists():
        folder, number = parent / f"{stamp}-{safe}-{number}", number + 1
    return folder


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide what a run computes."""
    found = {"python": sys.version.split()[0]}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
