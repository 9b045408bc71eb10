"""List a packed bundle's files with their SHA-256, and compare files with such a list.

The list shows damage and mistakes, not intent: who can change a file can change the list. The SHA-256 of the zip stands
for all of it, and should travel another way than the zip.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from medseg.errors import DataError, first_line
from medseg.findings import Finding, error, warning
from medseg.inspection.archive import READ_ERRORS
from medseg.inspection.contents import Contents, open_contents

MANIFEST = "manifest.json"
FORMAT = 1
_LARGEST = 16 << 20  # bytes of a manifest that are read; it has a line or two for each file
_INVALID = "it does not list files with their SHA-256"
_FETCH_AGAIN = "Fetch the bundle again, or ask who made it."


def sha256_of(source: Path | IO[bytes]) -> str:
    """Return the SHA-256 of a file as hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return sha256_of(file)
    return hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]  # files have readinto


def files_of(folder: Path) -> dict[str, Path]:
    """Return every file below a folder by its path in it, with `/` between the parts, sorted."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return dict(sorted(files.items()))


def make_manifest(folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of the files in a folder.

    Args:
        folder: the files that are packed.
        about: further entries: the bundle's name and version, and the versions it was made with.
    """
    files = {
        name: {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        for name, path in files_of(folder).items()
        if name != MANIFEST
    }
    return {"format": FORMAT, **about, "files": files}


def read_manifest(source: Path) -> dict[str, Any] | None:
    """Return the manifest of a packed bundle, a zip or the folder it was unpacked to; None where it has none.

    Raises:
        DataError: it cannot be read as a manifest, or a newer medseg wrote it; or no zip that can be unpacked.
    """
    return _manifest(_contents(source))


def compare(source: Path) -> list[Finding]:
    """Compare the files of a packed bundle with its manifest; nothing is written.

    Args:
        source: a zip, or the folder it was unpacked to.

    Raises:
        DataError: no manifest that can be read, see `read_manifest`.
    """
    files = _contents(source)
    content = _manifest(files)
    if content is None:
        message = f"it has no {MANIFEST}, so its files cannot be checked"
        fix = "Ask who made it for one that medseg bundle pack wrote."
        return [warning("no-manifest", source.name, message, fix)]
    listed: dict[str, Any] = content["files"]
    findings = []
    for name in sorted({*listed, *files.sizes} - {MANIFEST}):
        if name not in files.sizes:
            findings.append(error("file-missing", name, f"{MANIFEST} lists the file, and it is missing", _FETCH_AGAIN))
        elif name not in listed:
            message = f"the file is not in {MANIFEST}: it was added after packing"
            findings.append(error("file-not-listed", name, message, _FETCH_AGAIN))
        elif files.sizes[name] != listed[name]["bytes"] or _sha256_in(files, name) != listed[name]["sha256"]:
            message = f"the file is not the one that {MANIFEST} lists: it was changed or damaged"
            findings.append(error("file-changed", name, message, _FETCH_AGAIN))
    return findings


def _contents(source: Path) -> Contents:
    files = open_contents(source)
    damage = next((finding for finding in files.findings if files.kind == "zip"), None)
    if damage is not None:
        raise DataError(source, "the zip is damaged or not safe to unpack", damage.message, "Fetch it again.")
    return files


def _manifest(files: Contents) -> dict[str, Any] | None:
    if MANIFEST not in files.sizes:
        return None
    name = f"{files.path}, {MANIFEST}"
    try:
        content = json.loads(files.read(MANIFEST, _LARGEST))
        number = content["format"]
        is_valid = isinstance(number, int)
        for entry in content["files"].values():
            is_valid = is_valid and isinstance(entry["sha256"], str) and isinstance(entry["bytes"], int)
    except (*READ_ERRORS, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(name, _INVALID, first_line(error), _FETCH_AGAIN) from error
    if not is_valid:
        raise DataError(name, _INVALID, "wrong types", _FETCH_AGAIN)
    if number > FORMAT:
        problem = f"its format {number} was written by a newer medseg, and this one reads {FORMAT}"
        raise DataError(name, problem, "", "Update medseg.")
    return dict(content)


def _sha256_in(files: Contents, name: str) -> str:
    """Return the SHA-256 of a file, empty where it cannot be read."""
    try:
        with files.open(name) as file:
            return sha256_of(file)
    except READ_ERRORS:
        return ""
