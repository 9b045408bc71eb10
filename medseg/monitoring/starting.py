"""Starting the feed: a process of its own that outlives the one that started it."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from medseg.monitoring.settings import FOLDER, LOG

# What belongs to a W&B run of the process that starts us, not to ours.
_FOREIGN = (
    "WANDB_SERVICE",
    "WANDB_RUN_ID",
    "WANDB_RESUME",
    "WANDB_NAME",
    "WANDB_NOTES",
    "WANDB_RUN_GROUP",
    "WANDB_DIR",
)
_started: list[subprocess.Popen[bytes]] = []  # kept: nobody waits for them


@atexit.register
def _reap() -> None:
    for process in _started:
        process.poll()


def command(folder: str | Path, *options: str) -> list[str]:
    """The command that feeds a run's tracker."""
    return [sys.executable, "-m", "medseg.monitoring.uploader", str(Path(folder).resolve()), *options]


def environment() -> dict[str, str]:
    """This process's environment, in which medseg is found wherever it lies, and W&B asks nothing."""
    found = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    location = str(Path(__file__).resolve().parents[2])
    found["PYTHONPATH"] = os.pathsep.join(filter(None, [location, found.get("PYTHONPATH", "")]))
    found["OMP_NUM_THREADS"] = "1"
    return found


def start(folder: str | Path) -> subprocess.Popen[bytes]:
    """Start the feed and do not wait for it; what it says goes to `monitor/feed.log`.

    Raises:
        OSError: it cannot be started.
    """
    folder = Path(folder)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        apart = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    with (folder / FOLDER / LOG).open("ab") as log:
        process = subprocess.Popen(
            command(folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(),
            cwd=folder,
            close_fds=True,
            **apart,
        )
    _started.append(process)
    return process
