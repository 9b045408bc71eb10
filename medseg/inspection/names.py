"""Names of files that mean the same place on every system, and that place inside the folder they are unpacked to."""

from __future__ import annotations

import re
import unicodedata

from medseg.findings import printable

__all__ = ["fault", "folded", "printable"]

_DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    "conin$",
    "conout$",
    *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)),
}
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f]')
_LONGEST = 240


def folded(name: str) -> str:
    """What systems that ignore case, or compose letters, take two names for the same by.

    >>> folded("Models/Model.PT") == folded("models/model.pt")
    True
    """
    return unicodedata.normalize("NFKC", name).casefold()


def fault(name: str) -> str | None:
    """Why a relative name with `/` must not become a file; None where it may.

    >>> fault("../../.bashrc")
    'it climbs out of the folder'
    >>> fault("configs/train.json") is None
    True
    """
    if not name:
        return "it is empty"
    if name.startswith(("/", "\\", "~")) or re.match(r"[A-Za-z]:", name):
        return "it is an absolute path"
    if ".." in re.split(r"[/\\]", name):
        return "it climbs out of the folder"
    if _FORBIDDEN.search(name):
        return "it has a character that a file name cannot have everywhere"
    if len(name) > _LONGEST:
        return f"it has more than {_LONGEST} characters"
    for part in name.rstrip("/").split("/"):
        if part in ("", "."):
            return "it has an empty part"
        if part.endswith((".", " ")):
            return "a part ends with a dot or a blank, which Windows drops"
        if part.split(".")[0].strip().lower() in _DEVICES:
            return "a part is the name of a device on Windows"
    return None
