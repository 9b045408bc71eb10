"""Read and write lists that people edit by hand: one name per line, a comment behind '#'.."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medseg.atomic import write_text
from medseg.errors import DataError


def read_exclude(path: str | Path) -> dict[str, str]:
    """Return the ids in a list, each with its comment.

    Raises:
        DataError: the file cannot be read as text.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, "it cannot be read as a text file with one name per line", str(error)) from error
    reasons = {}
    for line in lines:
        id, _, reason = line.partition("#")
        if id.strip():
            reasons[id.strip()] = reason.strip()
    return reasons


def read_names(path: str | Path) -> tuple[str, ...]:
    """Return the names in a list, in its order: structures by precedence, for example.

    Raises:
        DataError: the file cannot be read as text.
    """
    return tuple(read_exclude(path))


def write_exclude(path: str | Path, reasons: Mapping[str, str]) -> None:
    """Write ids with their reasons, complete or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    lines = [f"{id}  # {' '.join(reason.split())}" for id, reason in sorted(reasons.items())]
    write_text(path, "\n".join(["# Cases that medseg leaves out, and why", *lines]) + "\n")
