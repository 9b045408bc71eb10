"""What a process without a terminal prints: to a file beside the runs first, then to its own run's folder."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from medseg.records import CONSOLE

VARIABLE = "MEDSEG_CONSOLE"  # names the file that the output of a detached process goes to
TAKEN = ".run"  # put behind that name: the file that says which run has taken its output over


def redirect_output_to(folder: str | Path, name: str = CONSOLE) -> None:
    """Let what this process prints go to a file in the run's folder from now on, what it printed before first.

    Does nothing in a process that was not detached. Whoever detached it learns from `<its file>.run` which run
    it is; `run.json` must be written by then. Processes that this one starts print to where it prints.

    Raises:
        OSError: the file in the run's folder cannot be written.
    """
    said_to = os.environ.pop(VARIABLE, None)
    if not said_to:
        return
    early, target = Path(said_to), Path(folder) / name
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    with target.open("ab") as file:
        with contextlib.suppress(OSError):
            file.write(early.read_bytes())
            file.flush()
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    said = early.with_name(f"{early.name}{TAKEN}")
    partial = said.with_name(f"{said.name}.partial")
    partial.write_text(str(Path(folder).resolve()), encoding="utf-8")
    partial.replace(said)
    with contextlib.suppress(OSError):  # on Windows as long as another process holds it open
        early.unlink()
