"""The identity and the state of a run: its folder, and `run.json` in it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import filelock
from ignite.engine import Events

from medseg.atomic import writable_folder, write_json
from medseg.errors import OutputError, RunError
from medseg.runs.detach import redirect_output_to
from medseg.runs.metrics_log import append_row
from medseg.runs.record import (
    FAILED,
    FINISHED,
    HISTORY,
    INTERRUPTED,
    LOCK,
    LOG,
    RECORD,
    RUNNING,
    STOPPING,
    is_alive,
    read_record,
    this_process,
)
from medseg.training.memory_advice import memory_advice
from medseg.training.signals import Interrupted, Interruption

logger = logging.getLogger(__name__)

_LEFT_OVER = 15  # s; the data loader's processes outlive a killed trainer by up to 5 s and what they are reading
_PACKAGES = ("medseg", "torch", "monai", "pytorch-ignite", "numpy", "nibabel")


def identity(config: Mapping[str, Any], data: str) -> str:
    """The hash that two runs share if, and only if, they are the same work: effective config and data.

    Args:
        config: the effective config, without what says where things lie.
        data: the fingerprint of the data set.
    """
    text = json.dumps([config, data], sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class TrainingRun:
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

        The record follows the trainer: where it is after each epoch and each checkpoint, and the best score.

        Raises:
            RunError: another process is at it.
            OutputError: the folder cannot be written.
            Interrupted: a signal stopped it; everything is saved.
        """
        with (
            self.running(trainer),
            self._followed(trainer),
            memory_advice(trainer, self.folder),
            Interruption(trainer, self.folder),
        ):
            trainer.run()

    @contextlib.contextmanager
    def running(self, trainer: Any = None) -> Iterator[None]:
        """Hold the run: state `running` inside; `finished`, `interrupted` or `failed` after."""
        writable_folder(self.folder)
        lock = self._lock()
        try:
            self._begin()
            redirect_output_to(self.folder)
            with self._log() as log:
                try:
                    logger.info("Run folder: %s", self.folder)
                    yield
                except (KeyboardInterrupt, Interrupted) as error:
                    reason = getattr(error, "reason", "SIGINT")
                    logger.info("Stopped by %s%s", reason, self._way_on(trainer))
                    self._end(INTERRUPTED, trainer, reason)
                    raise
                except BaseException as error:
                    # to the file alone: on the screen it is said by whoever started the run
                    log.handle(
                        logger.makeRecord(logger.name, logging.ERROR, "", 0, "The run ended", (), sys.exc_info())
                    )
                    self._end(FAILED, trainer, type(error).__name__, f"{type(error).__name__}: {error}"[:2000])
                    raise
                self._end(FINISHED, trainer, getattr(getattr(trainer, "state", None), "stop_reason", None))
        finally:
            lock.release()

    def _lock(self) -> filelock.BaseFileLock:
        lock = filelock.FileLock(self.folder / LOCK)
        record = self.record
        wait = _LEFT_OVER if record and not is_alive(record) else 0
        try:
            lock.acquire(timeout=wait)
        except filelock.Timeout as error:
            raise RunError(
                self.folder,
                "must be run by one process at a time",
                f"process {self.record.get('pid', 'unknown')} at it",
                "Wait for it, stop it, or give this run another run_name.",
            ) from error
        return lock

    @contextlib.contextmanager
    def _followed(self, trainer: Any) -> Iterator[None]:
        if hasattr(trainer, "add_event_handler"):
            checkpoints = getattr(trainer.state, "checkpoints", None)
            if checkpoints is not None:
                checkpoints.finish_last(trainer)
            noted = 0

            def note(engine: Any) -> None:
                nonlocal noted
                saved = checkpoints.saved if checkpoints is not None else 0
                if engine.last_event_name != Events.ITERATION_COMPLETED or saved != noted:
                    noted = saved
                    self.update(**_position(trainer))

            for event in (Events.STARTED, Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED):
                trainer.add_event_handler(event, note)
        yield

    def _way_on(self, trainer: Any) -> str:
        position = _position(trainer)
        length = position.get("epoch_length") or 0
        done = position.get("saved_iteration", position.get("iteration", 0))
        where = f" after iteration {done} of {length * (position.get('max_epochs') or 0)}"
        return (where if length else "") + (
            f". The same command again goes on from there, and so does: medseg runs resume {self.folder.name}"
        )

    def _end(self, state: str, trainer: Any, reason: str | None = None, error: str | None = None) -> None:
        """Say in the rows and in the record how the run ended; never in the way of what ended it."""
        position = _position(trainer)
        row = {"kind": "end", "time": round(time.time(), 3)}
        row |= {key: position[key] for key in ("epoch", "iteration") if key in position}
        finished = {"finished": _now()} if state == FINISHED else {}
        with contextlib.nullcontext() if state == FINISHED else contextlib.suppress(OSError, OutputError):
            append_row(self.folder, {**row, "state": state, "reason": reason})
            self.update(**position, state=state, reason=reason, error=error, **finished)

    def _begin(self) -> None:
        for name in (RECORD, HISTORY):  # what a kill left half written
            stem, _, extension = name.partition(".")
            for path in self.folder.glob(f".{stem}.*.partial.{extension}"):
                path.unlink(missing_ok=True)
        (self.folder / STOPPING).unlink(missing_ok=True)
        started = self.record.get("started", _now())
        if self._furnish is not None:
            self._furnish(self.folder)
        self.update(
            **self._about,
            identity=self.identity,
            state=RUNNING,
            started=started,
            **this_process(),
            versions=versions(),
            git=git_state(),
            error=None,
            reason=None,
        )

    @contextlib.contextmanager
    def _log(self) -> Iterator[logging.Handler]:
        handler = logging.FileHandler(self.folder / LOG, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        try:
            yield handler
        finally:
            logging.getLogger().removeHandler(handler)
            handler.close()


def _position(trainer: Any) -> dict[str, Any]:
    """Where a trainer is, and its best score."""
    state: Any = getattr(trainer, "state", None)
    names = ("epoch", "iteration", "max_epochs", "epoch_length")
    found = {name: getattr(state, name) for name in names if hasattr(state, name)}
    if getattr(state, "device", None) is not None:
        found["device"] = str(state.device)
    checkpoints = getattr(state, "checkpoints", None)
    if checkpoints is None:
        return found
    if not checkpoints.loaded:  # nobody knows yet where it goes on
        return {}
    dice, epoch = checkpoints.best
    known = epoch > 0 and math.isfinite(dice)
    best = {"best_dice": dice if known else None, "best_epoch": epoch if known else None}
    return {**found, **best, "saved_iteration": checkpoints.saved}


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


def git_state() -> dict[str, Any] | None:
    """Commit of the repository of the working directory, else of this package's, and whether files differ from it.

    None where there is no repository, no git, or no quick answer.
    """
    for folder, file in ((Path(), "."), (Path(__file__).parent, Path(__file__).name)):
        said = _git(folder, "ls-files", "--", file) and _git(
            folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"
        )
        if said:
            return {"commit": said.removesuffix("-dirty"), "dirty": said.endswith("-dirty")}
    return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]  # which a repository could set
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True, env=environment)
        return answer.stdout.strip()
    return ""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
