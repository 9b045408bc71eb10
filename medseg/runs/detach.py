"""Starting a command so that it runs on when the terminal closes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from medseg.atomic import writable_folder
from medseg.console_log import TAKEN, VARIABLE
from medseg.errors import RunError

EARLY = ".detached"  # the folder beside the runs for what is printed before a run has one
_KEPT_DAYS = 7
_TAIL = 20
PATIENCE_MINUTES = 10  # until a process that has begun no run is left to itself; a bundle of others' may never do so


@dataclass
class Started:
    """A process that was detached.

    Args:
        process: the process.
        log: the file that it prints to until its run has a folder.
    """

    process: subprocess.Popen[bytes]
    log: Path
    _folder: Path | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """The number of the process that was started."""
        return self.process.pid

    def folder(self) -> Path | None:
        """The folder of its run, as soon as the run has one and has taken the output over."""
        said = self.log.with_name(f"{self.log.name}{TAKEN}")
        if self._folder is None and said.is_file():
            self._folder = Path(said.read_text(encoding="utf-8"))
            with contextlib.suppress(OSError):
                said.unlink()
        return self._folder

    def ended(self) -> int | None:
        """Its exit code, None while it runs."""
        return self.process.poll()

    def printed(self, start: int = 0) -> bytes:
        """What it printed so far, from byte `start` on, before its run had a folder."""
        try:
            with self.log.open("rb") as file:
                file.seek(start)
                return file.read()
        except FileNotFoundError:
            return b""

    def let_go(self) -> None:
        """Forget the process, which goes on: Python would otherwise warn of one that nobody waited for."""
        if self.process.returncode is None:
            self.process.returncode = 0


def detach(
    command: Sequence[str],
    runs: str | Path,
    *,
    folder: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Started:
    """Start `command` in a session of its own, without a terminal; it lives on when this one closes.

    It reads nothing and prints to a file in `<runs>/.detached`, until its run moves the output to its own folder
    (`medseg.console_log.take_over`).

    Args:
        command: program and arguments.
        runs: the folder of the runs.
        folder: its working directory. Default: this one.
        environment: variables that are added to this process's own.

    Raises:
        OutputError: the folder of the runs cannot be written.
        RunError: the program cannot be started.
    """
    location = writable_folder(Path(runs) / EARLY)
    _tidy(location)
    log = location / f"{datetime.now():%Y%m%d-%H%M%S-%f}.log"
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {}), VARIABLE: str(log.resolve())}
    try:
        with log.open("xb") as output:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=variables,
                **_apart(),
            )
    except OSError as error:
        log.unlink(missing_ok=True)
        raise RunError(command[0], "must be a program that can be started", str(error)) from error
    return Started(process, log)


def _apart() -> dict[str, Any]:
    """What keeps a process from going down with this terminal."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
    return {"start_new_session": True}


def wait_for_run(
    started: Started, show: Callable[[bytes], None], *, every: float = 0.2, patience: float = 60.0 * PATIENCE_MINUTES
) -> Path | None:
    """Wait until the run has its folder, showing what is printed until then; the run goes on if this is interrupted.

    Gives the folder, or None where there is none for so long: the process goes on then.

    Args:
        started: what `detach` gave.
        show: called with what was printed, piece by piece.
        every: seconds between two looks.
        patience: seconds to wait.

    Raises:
        RunError: the process ended before its run began.
    """
    printable, until = 0, time.monotonic() + patience
    while True:
        code = started.ended()
        new = started.printed(printable)
        printable += len(new)
        folder = started.folder()  # after the output, which is gone from there once the run has taken it
        if new and folder is None:
            show(new)
        if folder is not None:
            return folder
        if code is not None:
            raise RunError(
                f"process {started.pid}",
                "must begin its run",
                f"exit code {code} before that",
                f"What it printed stays in {started.log}.",
            )
        if time.monotonic() >= until:
            return None
        time.sleep(every)


def last_lines(path: str | Path, count: int = _TAIL) -> list[str]:
    """The last lines of a text file; none where there is no file. What a progress bar drew over is left out."""
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 400 * count))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    return [line for line in lines if line.strip()][-count:]


def _tidy(location: Path) -> None:
    for path in location.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _KEPT_DAYS * 86400:
                path.unlink()
