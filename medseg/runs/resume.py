"""Resume a run from its folder, which is a bundle with the config that it was started with."""

from __future__ import annotations

import contextlib
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

from medseg.errors import RunError, command_line
from medseg.runs.detach import Detached, detach
from medseg.runs.record import FINISHED, RUNNING, is_local, read_record
from medseg.runs.run import SILENT_MINUTES, Run, run_state


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

    That refuses a run that was not begun here, see `medseg.runs.origin`. It is given where the user stands: a record
    may have been written by anyone, so the folder that it names is never entered.

    Args:
        folder: the run's folder.
        overrides: `KEY=VALUE`; what cannot be changed in a run is refused by `medseg train`.
        trust: resume it even if it was begun elsewhere.

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
    # Python imports from the working directory first, and that may hold anyone's files.
    is_checkout = Path(__file__).resolve().parents[2] == Path().resolve()
    return ResumeCommand(command, Path().resolve(), {} if is_checkout else {"PYTHONSAFEPATH": "1"})


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
