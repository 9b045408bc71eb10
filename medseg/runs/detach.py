"""Start a command that outlives its terminal, and bring what it prints to the folder of its run."""

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

from medseg.atomic import move, writable_folder
from medseg.errors import RunError
from medseg.runs.record import CONSOLE

DETACHED = ".detached"  # the folder beside the runs for what is printed before a run has a folder
VARIABLE = "MEDSEG_CONSOLE"  # names the file to which a detached process prints
PATIENCE_MINUTES = 10  # a process that has begun no run by then is left alone; a foreign bundle may never do so
_KEEP_DAYS = 7
_RUN_FILE = ".run"  # `<file>.run` holds the folder of the run that took the output over


@dataclass
class Detached:
    """A process that was detached.

    Args:
        process: the process.
        log: the file to which it prints until its run has a folder.
    """

    process: subprocess.Popen[bytes]
    log: Path
    _folder: Path | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """Its process number."""
        return self.process.pid

    def folder(self) -> Path | None:
        """Return the folder of its run once the run has one and has taken the output over, None before."""
        file = self.log.with_name(f"{self.log.name}{_RUN_FILE}")
        if self._folder is None and file.is_file():
            self._folder = Path(file.read_text(encoding="utf-8"))
            with contextlib.suppress(OSError):
                file.unlink()
        return self._folder

    def exit_code(self) -> int | None:
        """Return its exit code, None while it runs."""
        return self.process.poll()

    def output(self, start: int = 0) -> bytes:
        """Return what it printed before its run had a folder, from byte `start` on."""
        try:
            with self.log.open("rb") as file:
                file.seek(start)
                return file.read()
        except FileNotFoundError:
            return b""

    def release(self) -> None:
        """Stop waiting for the process, which lives on: Python warns of a child that nothing waited for."""
        if self.process.returncode is None:
            self.process.returncode = 0


def detach(
    command: Sequence[str],
    runs: str | Path,
    *,
    folder: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Detached:
    """Start `command` in a session of its own without a terminal, so that it outlives this one.

    It reads nothing and prints to a file in `<runs>/.detached`, until its run calls `redirect_output_to`.

    Args:
        command: program and arguments.
        runs: the folder of the runs.
        folder: its working directory. Default: this one.
        environment: variables that are added to this process's.

    Raises:
        OutputError: the folder of the runs cannot be written.
        RunError: the program cannot be started.
    """
    location = writable_folder(Path(runs) / DETACHED)
    _remove_old_files(location)
    log = location / f"{datetime.now():%Y%m%d-%H%M%S-%f}.log"
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {}), VARIABLE: str(log.resolve())}
    # A session of its own gets no SIGHUP when the terminal closes, and no Ctrl-C.
    options: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
    try:
        with log.open("xb") as output:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=variables,
                **options,
            )
    except OSError as error:
        log.unlink(missing_ok=True)
        raise RunError(command[0], "the program cannot be started", str(error)) from error
    return Detached(process, log)


def wait_for_run(
    detached: Detached, show: Callable[[bytes], None], *, every: float = 0.2, patience: float = 60.0 * PATIENCE_MINUTES
) -> Path | None:
    """Wait until the run of a detached process has its folder, and show what is printed until then.

    The process lives on if this is interrupted.

    Args:
        detached: what `detach` returned.
        show: called with what was printed, piece by piece.
        every: seconds between two looks.
        patience: seconds to wait.

    Returns:
        The folder; None where there is none after all that time.

    Raises:
        RunError: the process ended before its run began.
    """
    shown = 0
    deadline = time.monotonic() + patience
    while True:
        code = detached.exit_code()
        new = detached.output(shown)
        shown += len(new)
        # Asked after reading the output, which leaves that file once the run has taken it over.
        folder = detached.folder()
        if new and folder is None:
            show(new)
        if folder is not None:
            return folder
        if code is not None:
            problem = f"it ended with exit code {code} before its run began"
            raise RunError(f"process {detached.pid}", problem, fix=f"What it printed is in {detached.log}.")
        if time.monotonic() >= deadline:
            return None
        time.sleep(every)


def redirect_output_to(folder: str | Path, name: str = CONSOLE) -> None:
    """Move the output of this process to a file in the run's folder: what it printed so far, and what it will print.

    Does nothing in a process that was not detached. The process that detached it learns the folder from
    `<file>.run`, so `run.json` must be written before. Child processes print to where their parent prints.

    Raises:
        OSError: the file in the run's folder cannot be written.
    """
    variable = os.environ.pop(VARIABLE, None)
    if not variable:
        return
    log = Path(variable)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    with (Path(folder) / name).open("ab") as file:
        with contextlib.suppress(OSError):
            file.write(log.read_bytes())
            file.flush()
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    # Written beside and renamed, so that the process that waits for it never reads half a path.
    run_file = log.with_name(f"{log.name}{_RUN_FILE}")
    partial = run_file.with_name(f"{run_file.name}.partial")
    partial.write_text(str(Path(folder).resolve()), encoding="utf-8")
    move(partial, run_file)
    with contextlib.suppress(OSError):  # Windows does not remove a file that another process has open
        log.unlink()


def _remove_old_files(location: Path) -> None:
    for path in location.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _KEEP_DAYS * 86400:
                path.unlink()
