"""Resume a run from its folder, which is a bundle with the config that it was started with."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from medseg.errors import RunError, command_line
from medseg.runs.detach import Detached, detach
from medseg.runs.record import FINISHED, RUNNING, is_local, read_record
from medseg.runs.run import SILENT_MINUTES, Run, run_state

STATE_VARIABLE = "MEDSEG_STATE_DIR"  # names another folder for what medseg remembers on this machine


@dataclass(frozen=True)
class ResumeCommand:
    """The command that resumes a run.

    Args:
        command: program and arguments.
        folder: its working directory.
        environment: variables to add.
    """

    command: list[str]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)


def resume_command(folder: str | Path, overrides: Sequence[str] = (), trust: bool = False) -> ResumeCommand:
    """Return the command that resumes a run: `medseg train` with the run's folder as the bundle.

    It judges the folder before anything of it is executed, see `medseg.inspection`. It is given where the run was
    started, so that relative paths in its config lead to the same files.

    Args:
        folder: the run's folder.
        overrides: `KEY=VALUE`; what cannot be changed in a run is refused by `medseg train`.
        trust: resume it even if it could do more than what is known to be harmless.

    Raises:
        RunError: it is running, or has finished and nothing is to be changed.
    """
    folder = Path(folder).resolve()
    record = read_record(folder)
    _require_resumable(folder, record, overrides)
    if not (folder / "configs" / "train.json").is_file():
        fix = "Give the command again that started it."
        raise RunError(f"run '{folder.name}'", "its folder holds no config to resume it with", fix=fix)
    command = [sys.executable, "-m", "medseg", "train", str(folder), *overrides, f"resume={folder}"]
    if trust:
        command.append("--trust")
    start_folder = Path(str(record.get("working_directory") or Path()))
    if not start_folder.is_dir():
        start_folder = Path()
    environment = {}
    if Path(__file__).resolve().parents[2] != start_folder.resolve():
        # Python imports from the working directory first, and a record may name any.
        environment["PYTHONSAFEPATH"] = "1"
    return ResumeCommand(command, start_folder.resolve(), environment)


def resume_detached(folder: str | Path, overrides: Sequence[str] = (), trust: bool = False) -> Detached:
    """Resume a run in a process that outlives this terminal; see `resume_command` and `detach`."""
    folder = Path(folder).resolve()
    resume = resume_command(folder, overrides, trust)
    return detach(resume.command, folder.parent.parent, folder=resume.folder, environment=resume.environment)


def resume_here(folder: str | Path, overrides: Sequence[str] = (), trust: bool = False) -> int:
    """Resume a run in this terminal, which gets Ctrl-C and all output, and return its exit code.

    Raises:
        RunError: see `resume_command`.
    """
    resume = resume_command(folder, overrides, trust)
    with _pass_signals_on() as children:
        process = subprocess.Popen(resume.command, cwd=resume.folder, env={**os.environ, **resume.environment})
        children.append(process)
        return process.wait()


def remember_start(folder: str | Path) -> None:
    """Remember that the run in this folder was started on this machine with this config; silent if that fails.

    Kept is an empty file named by the config's SHA-256 in the user's state folder, where a bundle cannot write.
    """
    with contextlib.suppress(OSError):
        path = _memory() / _digest(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def was_started_here(folder: str | Path) -> bool:
    """Return True if a run was started on this machine by this user, with exactly the config that it holds now."""
    try:
        return (_memory() / _digest(folder)).is_file()
    except OSError:
        return False


def _memory() -> Path:
    folder = os.environ.get(STATE_VARIABLE) or platformdirs.user_state_path("medseg", appauthor=False)
    return Path(folder) / "started"


def _digest(folder: str | Path) -> str:
    return hashlib.sha256((Path(folder) / "configs" / "train.json").read_bytes()).hexdigest()


@contextlib.contextmanager
def _pass_signals_on() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Yield a list of child processes that get SIGTERM from here.

    Ctrl-C reaches the children by itself, since they share the terminal, and must not end their parent before them.
    """
    children: list[subprocess.Popen[bytes]] = []
    if threading.current_thread() is not threading.main_thread():
        yield children
        return

    def pass_on(number: int, frame: object) -> None:
        for child in children:
            child.send_signal(number)

    previous = {signal.SIGINT: signal.signal(signal.SIGINT, lambda number, frame: None)}
    previous[signal.SIGTERM] = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield children
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _require_resumable(folder: Path, record: Mapping[str, Any], overrides: Sequence[str]) -> None:
    name = f"run '{folder.name}'"
    state = run_state(folder, record)
    if state == FINISHED and not overrides:
        raise RunError(name, "it has finished", fix="To train on, change a setting, for example max_epochs=N.")
    if state != RUNNING:
        return
    if is_local(record):
        fix = f"Stop it first: {command_line('runs', 'stop', folder.name)}"
        raise RunError(name, f"it is running, as process {record.get('pid')}", fix=fix)
    minutes = (time.time() - (Run(folder).last_sign or 0.0)) / 60
    raise RunError(
        name,
        f"it is running on {record.get('host')}, which gave a sign of life {minutes:.0f} min ago",
        fix=f"Stop it there; a machine that is silent for {SILENT_MINUTES} min counts as gone.",
    )
