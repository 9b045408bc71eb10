"""The text files of a run, `train.log` and `console.log`: their last lines, and following one that grows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from medseg.runs.record import RUNNING
from medseg.runs.run import run_state

_BLOCK = 1 << 16


def last_lines(path: str | Path, count: int = 20) -> list[str]:
    """Return the last lines of a text file as a terminal would show them; none where there is no file.

    What a progress bar drew over and empty lines are left out.
    """
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 400 * count))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    return [line for line in lines if line.strip()][-count:]


def start_of_last_lines(path: str | Path, count: int) -> int:
    """Return the byte at which the last `count` lines begin; 0 for all of them, or where there is no file."""
    path = Path(path)
    if count <= 0 or not path.is_file():
        return 0
    with path.open("rb") as file:
        position = file.seek(0, 2)
        content = b""
        while position > 0:
            step = min(_BLOCK, position)
            position -= step
            file.seek(position)
            content = file.read(step) + content
            # The end of the last line does not begin another.
            if content.count(b"\n", 0, len(content) - 1) >= count:
                break
        else:
            return 0
    start = len(content) - 1
    for _ in range(count):
        start = content.rfind(b"\n", 0, start)
    return position + start + 1


def follow(
    folder: str | Path, path: str | Path, start: int = 0, *, forever: bool = True, every: float = 0.5
) -> Iterator[bytes]:
    """Yield what is written to a file, piece by piece, until the run has ended and all of it has come.

    A file that does not exist yet is waited for. One that became shorter is read from its beginning.

    Args:
        folder: the run's folder.
        path: the file.
        start: the first byte.
        forever: False to yield what there is and end.
        every: seconds between two looks.
    """
    path = Path(path)
    while True:
        # Asked before reading: nothing is written after the run's end.
        wait_for_more = forever and run_state(folder) == RUNNING
        if path.is_file():
            with path.open("rb") as file:
                size = file.seek(0, 2)
                start = file.seek(start if start <= size else 0)
                while piece := file.read(_BLOCK):
                    start += len(piece)
                    yield piece
        if not wait_for_more:
            return
        time.sleep(every)
