"""The list of a packed bundle's files with their SHA-256, and holding files against it.

It tells damage and mistakes, not intent: who can change a file can change the list. What stands for the whole is the
SHA-256 of the zip, which goes another way than the zip.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from medseg.errors import DataError
from medseg.findings import Finding, error, warning

MANIFEST = "manifest.json"
FORMAT = 1
_CHUNK = 1 << 20
_MOST = 16 << 20  # bytes of a manifest, which has a line or two for each file


def sha256_of(source: Path | IO[bytes]) -> str:
    """The SHA-256 of a file, as hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return sha256_of(file)
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def files_of(folder: Path) -> dict[str, Path]:
    """Every file below a folder by its path in it, `/` between its parts, sorted."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return dict(sorted(found.items()))


def make_manifest(folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of what lies in a folder.

    Args:
        folder: the files that are packed.
        about: what else it says: the bundle's name and version, and the versions it was made with.
    """
    files = {
        name: {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        for name, path in files_of(folder).items()
        if name != MANIFEST
    }
    return {"format": FORMAT, **about, "files": files}


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest in a packed bundle, a zip or the folder it was unpacked to; None where there is none.

    Raises:
        DataError: it is no manifest, or one of a newer medseg.
    """
    text: bytes | None = None
    if path.is_dir():
        text = (path / MANIFEST).read_bytes() if (path / MANIFEST).is_file() else None
    else:
        with _opened(path) as archive:
            top = _top(archive)
            if top is not None:
                with archive.open(top + MANIFEST) as file:
                    text = file.read(_MOST)
    if text is None:
        return None
    try:
        content = json.loads(text)
        files = content["files"]
        known = all(isinstance(one["sha256"], str) and isinstance(one["bytes"], int) for one in files.values())
        form = content["format"]
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise DataError(f"{path}, {MANIFEST}", "must list files with their SHA-256", str(problem)) from problem
    if not known or not isinstance(form, int):
        raise DataError(f"{path}, {MANIFEST}", "must list files with their SHA-256", "other entries")
    if form > FORMAT:
        raise DataError(
            path, f"must be packed in a form up to {FORMAT}", f"form {form}, of a newer medseg", "Update medseg."
        )
    return dict(content)


def compare(path: Path) -> list[Finding]:
    """Hold a packed bundle against its manifest; nothing is written.

    Args:
        path: a zip, or the folder it was unpacked to.

    Raises:
        DataError: no manifest that can be read, see `read_manifest`.
    """
    content = read_manifest(path)
    if content is None:
        fix = "Ask whoever made it for one that medseg bundle pack wrote."
        return [warning("no-manifest", path.name, f"no {MANIFEST}: nothing says whether its files are whole", fix)]
    listed: dict[str, Any] = content["files"]
    if path.is_dir():
        found = {name: _of_file(file) for name, file in files_of(path).items() if name != MANIFEST}
    else:
        found = _in_zip(path, listed)
    fix = "Fetch it again, or ask whoever made it."
    findings = []
    for name in sorted({*listed, *found}):
        if name not in found:
            findings.append(error("file-missing", name, f"in {MANIFEST}, but not there", fix))
        elif name not in listed:
            findings.append(error("file-not-listed", name, f"not in {MANIFEST}: it came in afterwards", fix))
        elif found[name] != (listed[name]["sha256"], listed[name]["bytes"]):
            findings.append(error("file-changed", name, f"not the file that {MANIFEST} lists: changed or damaged", fix))
    return findings


def _of_file(path: Path) -> tuple[str, int]:
    return sha256_of(path), path.stat().st_size


def _in_zip(path: Path, listed: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """SHA-256 and size of each file in a zip; none is read beyond the size that is listed."""
    found: dict[str, tuple[str, int]] = {}
    with _opened(path) as archive:
        top = _top(archive) or ""
        for entry in archive.infolist():
            name = entry.filename.removeprefix(top)
            if entry.is_dir() or name == MANIFEST:
                continue
            if name not in listed or entry.file_size != listed[name]["bytes"]:
                found[name] = ("", entry.file_size)
                continue
            try:
                with archive.open(entry) as file:
                    found[name] = (sha256_of(file), entry.file_size)
            except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError):
                found[name] = ("", entry.file_size)
    return found


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as problem:
        raise DataError(
            path, "must be a whole zip file", str(problem) or type(problem).__name__, "Fetch it again."
        ) from problem


def _top(archive: zipfile.ZipFile) -> str | None:
    """What stands before the names of all that belongs to the bundle: `""` or `folder/`; None without a manifest."""
    found = [name for name in archive.namelist() if PurePosixPath(name).name == MANIFEST and name.count("/") < 2]
    return min(found, key=len).removesuffix(MANIFEST) if found else None
