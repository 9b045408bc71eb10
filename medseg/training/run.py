"""A run while it is computed: its folder, its lock, its log and its record."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import filelock
from ignite.engine import Events

from medseg.atomic import writable_folder
from medseg.errors import OutputError, RunError, command_line
from medseg.runs.detach import redirect_output_to
from medseg.runs.find import require_run_name
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
    write_record,
)
from medseg.training.backup import Backup
from medseg.training.git_state import git_state
from medseg.training.memory_advice import memory_advice
from medseg.training.signals import Interrupted, Interruption

logger = logging.getLogger(__name__)

_LOCK_SECONDS = 15  # the data loader's processes outlive a killed trainer by up to 5 s and what they are reading
_PACKAGES = ("medseg", "torch", "monai", "pytorch-ignite", "numpy", "nibabel")
_LONGEST_ERROR = 2000  # characters


def identity(config: Mapping[str, Any], data: str) -> str:
    """Return the hash that two runs share if, and only if, they compute the same.

    Args:
        config: the part of the effective config that changes the result.
        data: the fingerprint of the data set.
    """
    text = json.dumps([config, data], sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class TrainingRun:
    """Run a trainer in a folder of its own, and write there who it is and how it stands.

    Not `medseg.Run`, which reads such a folder. Nothing is written before `train`.

    Args:
        folder: the run's folder.
        identity: see `identity`.
        facts: further fields of `run.json` (bundle, name, command ...).
        prepare: called with the folder once it exists, to write configs and label map.
        backup: keeps a copy of the folder elsewhere while it trains.
    """

    def __init__(
        self,
        folder: Path,
        identity: str,
        facts: Mapping[str, Any],
        prepare: Callable[[Path], None] | None = None,
        backup: Backup | None = None,
    ) -> None:
        self.folder = folder
        self.identity = identity
        self.backup = backup
        self._facts = dict(facts)
        self._prepare = prepare

    @property
    def record(self) -> dict[str, Any]:
        """The content of `run.json`; empty before the run started."""
        return read_record(self.folder)

    def update(self, **fields: Any) -> None:
        """Change fields of `run.json`, all of them or none."""
        write_record(self.folder, {**self.record, **fields})

    def train(self, trainer: Any) -> None:
        """Run a trainer as this run: its folder is made and locked, and its state is kept.

        The record follows the trainer: its position after each epoch and each checkpoint, and the best score. At the
        end the backup is brought up to date, within bounds.

        Raises:
            RunError: another process computes it.
            OutputError: the folder cannot be written.
            Interrupted: a signal stopped it; everything is saved.
        """
        with self.backup or contextlib.nullcontext(), self.running(trainer):
            self._follow(trainer)
            logger.info("%s", describe(trainer))
            with memory_advice(trainer, self.folder), Interruption(trainer, self.folder):
                trainer.run()

    @contextlib.contextmanager
    def running(self, trainer: Any = None) -> Iterator[None]:
        """Lock the folder and keep the state: `running` inside; `finished`, `interrupted` or `failed` after."""
        writable_folder(self.folder)
        lock = self._lock()
        try:
            self._begin()
            redirect_output_to(self.folder)
            with self._log_file() as log:
                try:
                    logger.info("Run folder: %s", self.folder)
                    yield
                except (KeyboardInterrupt, Interrupted) as error:
                    reason = getattr(error, "reason", "SIGINT")
                    logger.info("Stopped by %s%s", reason, self._resume_hint(trainer))
                    self._end(INTERRUPTED, trainer, reason)
                    raise
                except BaseException as error:
                    # To the file only: the command that started the run prints the error.
                    log.handle(
                        logger.makeRecord(logger.name, logging.ERROR, "", 0, "The run ended", (), sys.exc_info())
                    )
                    name = type(error).__name__
                    self._end(FAILED, trainer, name, f"{name}: {error}"[:_LONGEST_ERROR])
                    raise
                self._end(FINISHED, trainer, getattr(getattr(trainer, "state", None), "stop_reason", None))
                logger.info("%s", self._next_step())
        finally:
            lock.release()

    def _lock(self) -> filelock.BaseFileLock:
        lock = filelock.FileLock(self.folder / LOCK)
        record = self.record
        try:
            lock.acquire(timeout=_LOCK_SECONDS if record and not is_alive(record) else 0)
        except filelock.Timeout as error:
            pid = self.record.get("pid", "unknown")
            fix = "Wait for it, stop it, or give this run another run_name."
            raise RunError(self.folder, f"process {pid} computes this run already", fix=fix) from error
        return lock

    def _follow(self, trainer: Any) -> None:
        if not hasattr(trainer, "add_event_handler"):
            return
        checkpoints = getattr(trainer.state, "checkpoints", None)
        if checkpoints is not None:
            checkpoints.finish_last(trainer)
        recorded = 0  # the iteration of the checkpoint that the record has

        def write_position(engine: Any) -> None:
            nonlocal recorded
            saved = checkpoints.saved if checkpoints is not None else 0
            if engine.last_event_name != Events.ITERATION_COMPLETED or saved != recorded:
                recorded = saved
                self.update(**_position(trainer))

        for event in (Events.STARTED, Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED):
            trainer.add_event_handler(event, write_position)

    def _resume_hint(self, trainer: Any) -> str:
        position = _position(trainer)
        length = position.get("epoch_length") or 0
        iteration = position.get("saved_iteration", position.get("iteration", 0))
        progress = f" after iteration {iteration} of {length * (position.get('max_epochs') or 0)}" if length else ""
        resume = command_line("runs", "resume", self.folder.name)
        return f"{progress}. Resume it with the same command, or with: {resume}"

    def _next_step(self) -> str:
        """Return the last line of a run that finished: how good it is, where it lies and how to use it."""
        record = self.record
        folder, here = self.folder.resolve(), Path().resolve()
        shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
        dice = record.get("best_dice")
        best = "" if dice is None else f" Best Dice {dice:.4f}, in epoch {record.get('best_epoch')}."
        if not (folder / "models" / "model.pt").is_file():
            return f"The run is in {shown}.{best}"
        return f"The run is in {shown}.{best} Segment with it: {command_line('predict', shown, tail='SCAN -o masks')}"

    def _end(self, state: str, trainer: Any, reason: str | None = None, error: str | None = None) -> None:
        """Write to log and record how the run ended; a full disk must not hide the error that ended it."""
        position = _position(trainer)
        row = {"kind": "end", "time": round(time.time(), 3)}
        row |= {key: position[key] for key in ("epoch", "iteration") if key in position}
        finished = {"finished": _now()} if state == FINISHED else {}
        with contextlib.nullcontext() if state == FINISHED else contextlib.suppress(OSError, OutputError):
            append_row(self.folder, {**row, "state": state, "reason": reason})
            self.update(**position, state=state, reason=reason, error=error, **finished)

    def _begin(self) -> None:
        for name in (RECORD, HISTORY):  # files that a kill left half written
            stem, _, extension = name.partition(".")
            for path in self.folder.glob(f".{stem}.*.partial.{extension}"):
                path.unlink(missing_ok=True)
        (self.folder / STOPPING).unlink(missing_ok=True)
        started = self.record.get("started", _now())
        if self._prepare is not None:
            self._prepare(self.folder)
        self.update(
            **self._facts,
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
    def _log_file(self) -> Iterator[logging.Handler]:
        handler = logging.FileHandler(self.folder / LOG, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        try:
            yield handler
        finally:
            logging.getLogger().removeHandler(handler)
            handler.close()


def _position(trainer: Any) -> dict[str, Any]:
    """Return where a trainer is, and its best score."""
    state: Any = getattr(trainer, "state", None)
    names = ("epoch", "iteration", "max_epochs", "epoch_length")
    position = {name: getattr(state, name) for name in names if hasattr(state, name)}
    if getattr(state, "device", None) is not None:
        position["device"] = str(state.device)
    checkpoints = getattr(state, "checkpoints", None)
    if checkpoints is None:
        return position
    if not checkpoints.loaded:  # it is not known yet where the trainer resumes
        return {}
    dice, epoch = checkpoints.best
    has_best = epoch > 0 and math.isfinite(dice)
    best = {"best_dice": dice if has_best else None, "best_epoch": epoch if has_best else None}
    return {**position, **best, "saved_iteration": checkpoints.saved}


def describe(trainer: Any) -> str:
    """Return in one line what a trainer will do: network, parameters, device, steps and epochs."""
    network, loader, state = (getattr(trainer, name, None) for name in ("network", "data_loader", "state"))
    what = ""
    if network is not None:
        count = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
        amount = f"{count / 1e6:.3g} million" if count >= 1e5 else f"{count:,}"
        what = f" {type(network).__name__} with {amount} parameters"
    device = getattr(state, "device", None)
    where = f" on {device}" if device is not None else ""
    size = getattr(loader, "batch_size", None)
    samples = f" of {size} samples" if size else ""
    length, epochs = getattr(state, "epoch_length", None), getattr(state, "max_epochs", None)
    steps = f": {length} steps{samples} an epoch, {epochs} epochs" if length else ""
    return f"Training{what}{where}{steps}"


def new_folder(parent: Path, name: str) -> Path:
    """Return a path for a new run that does not exist: `<parent>/<time>-<name>`.

    Raises:
        ConfigError: see `medseg.runs.find.require_run_name`.
    """
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    require_run_name(name)
    safe = "".join(letter if letter.isalnum() or letter in "-_.," else "-" for letter in name)
    folder = parent / f"{stamp}-{safe}"
    number = 2
    while folder.exists():
        folder = parent / f"{stamp}-{safe}-{number}"
        number += 1
    return folder


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide what a run computes."""
    installed = {"python": sys.version.split()[0]}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            installed[package] = version(package)
    return installed


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
