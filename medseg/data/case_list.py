"""Lists that people write by hand: one name a line, what stands behind '#' says why. Cases to leave out, for one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medseg.atomic import write_text
from medseg.errors import DataError


def read_exclude(path: str | Path) -> dict[str, str]:
    """The ids in the file, each with its reason.

    Raises:
        DataError: the file cannot be read as text.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, "must be a text file with one name a line", str(error)) from error
    found = {}
    for line in lines:
        id, _, reason = line.partition("#")
        if id.strip():
            found[id.strip()] = reason.strip()
    return found


def read_names(path: str | Path) -> tuple[str, ...]:
    """The names in such a file, in its order: structures by precedence, for one.

    Raises:
        DataError: the file cannot be read as text.
    """
    return tuple(read_exclude(path))


def write_exclude(path: str | Path, reasons: Mapping[str, str]) -> None:
    """Write ids with their reasons, whole or not at all.

    Raises:
        OutputError: the place cannot be written.
    """
    lines = [f"{id}  # {' '.join(reason.split())}" for id, reason in sorted(reasons.items())]
    write_text(path, "\n".join(["# Cases that medseg leaves out, and why", *lines]) + "\n")
