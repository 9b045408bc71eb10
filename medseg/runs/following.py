"""Following a file of a run for as long as the run writes to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from medseg.runs.runs import standing
from medseg.records import RUNNING

_BLOCK = 1 << 16


def start_of(path: str | Path, lines: int) -> int:
    """The byte at which the last `lines` lines of a file begin; 0 for all of them, or where there is no file."""
    path = Path(path)
    if lines <= 0 or not path.is_file():
        return 0
    with path.open("rb") as file:
        position = file.seek(0, 2)
        wanted, found = lines, b""
        while position > 0:
            step = min(_BLOCK, position)
            position -= step
            file.seek(position)
            found = file.read(step) + found
            ends = found.count(b"\n", 0, len(found) - 1)  # the end of the last line does not begin one
            if ends >= wanted:
                break
        else:
            return 0
    begin = len(found) - 1
    for _ in range(wanted):
        begin = found.rfind(b"\n", 0, begin)
    return position + begin + 1


def follow(
    folder: str | Path, path: str | Path, start: int = 0, *, forever: bool = True, every: float = 0.5
) -> Iterator[bytes]:
    """What is written to a file, piece by piece, until the run has ended and all of it has come.

    A file that is not there yet is waited for. One that became shorter is read from its beginning.

    Args:
        folder: the run's folder.
        path: the file.
        start: the first byte.
        forever: whether to wait for more while the run goes on.
        every: seconds between two looks.
    """
    path = Path(path)
    while True:
        goes_on = forever and standing(folder) == RUNNING  # before reading: nothing comes after its end
        if path.is_file():
            with path.open("rb") as file:
                size = file.seek(0, 2)
                start = file.seek(start if start <= size else 0)
                while piece := file.read(_BLOCK):
                    start += len(piece)
                    yield piece
        if not goes_on:
            return
        time.sleep(every)
