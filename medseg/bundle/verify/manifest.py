"""List a packed bundle's files with their SHA-256, and compare files with such a list.

The list shows damage and mistakes, not intent: who can change a file can change the list. The SHA-256 of the zip stands
for all of it, and should travel another way than the zip.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from medseg.errors import DataError
from medseg.findings import Finding, error, warning

MANIFEST = "manifest.json"
FORMAT = 1
_LARGEST = 16 << 20  # bytes of a manifest that are read; it has a line or two for each file
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


def read_manifest(source: Path | zipfile.ZipFile) -> dict[str, Any] | None:
    """Return the manifest of a packed bundle, None where it has none.

    Args:
        source: a zip, open or by its path, or the folder it was unpacked to.

    Raises:
        DataError: it cannot be read as a manifest, or a newer medseg wrote it.
    """
    text = _manifest_text(source)
    if text is None:
        return None
    name = f"{_name_of(source)}, {MANIFEST}"
    try:
        content = json.loads(text)
        files, number = content["files"], content["format"]
        is_valid = isinstance(number, int)
        for entry in files.values():
            is_valid = is_valid and isinstance(entry["sha256"], str) and isinstance(entry["bytes"], int)
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        reason = f"{type(problem).__name__}: {problem}"
        raise DataError(name, "it does not list files with their SHA-256", reason, _FETCH_AGAIN) from problem
    if not is_valid:
        raise DataError(name, "it does not list files with their SHA-256", "wrong types", _FETCH_AGAIN)
    if number > FORMAT:
        raise DataError(
            name,
            f"its format {number} was written by a newer medseg, and this one reads {FORMAT}",
            "",
            "Update medseg.",
        )
    return dict(content)


def compare(source: Path | zipfile.ZipFile) -> list[Finding]:
    """Compare the files of a packed bundle with its manifest; nothing is written.

    Args:
        source: a zip, open or by its path, or the folder it was unpacked to.

    Raises:
        DataError: no manifest that can be read, see `read_manifest`.
    """
    content = read_manifest(source)
    if content is None:
        message = f"it has no {MANIFEST}, so its files cannot be checked"
        fix = "Ask who made it for one that medseg bundle pack wrote."
        return [warning("no-manifest", Path(_name_of(source)).name, message, fix)]
    listed: dict[str, Any] = content["files"]
    if isinstance(source, Path) and source.is_dir():
        existing = {
            name: (sha256_of(file), file.stat().st_size) for name, file in files_of(source).items() if name != MANIFEST
        }
    else:
        with _opened(source) as archive:
            existing = _in_zip(archive, listed)
    findings = []
    for name in sorted({*listed, *existing}):
        if name not in existing:
            findings.append(error("file-missing", name, f"{MANIFEST} lists the file, and it is missing", _FETCH_AGAIN))
        elif name not in listed:
            message = f"the file is not in {MANIFEST}: it was added after packing"
            findings.append(error("file-not-listed", name, message, _FETCH_AGAIN))
        elif existing[name] != (listed[name]["sha256"], listed[name]["bytes"]):
            message = f"the file is not the one that {MANIFEST} lists: it was changed or damaged"
            findings.append(error("file-changed", name, message, _FETCH_AGAIN))
    return findings


def _manifest_text(source: Path | zipfile.ZipFile) -> bytes | None:
    if isinstance(source, Path) and source.is_dir():
        return (source / MANIFEST).read_bytes() if (source / MANIFEST).is_file() else None
    with _opened(source) as archive:
        top = _top_folder(archive)
        if top is None:
            return None
        with archive.open(top + MANIFEST) as file:
            return file.read(_LARGEST)


def _in_zip(archive: zipfile.ZipFile, listed: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Return SHA-256 and size of each file in a zip; none is read beyond the size that is listed."""
    existing: dict[str, tuple[str, int]] = {}
    top = _top_folder(archive) or ""
    for entry in archive.infolist():
        name = entry.filename.removeprefix(top)
        if entry.is_dir() or name == MANIFEST:
            continue
        existing[name] = ("", entry.file_size)
        if name in listed and entry.file_size == listed[name]["bytes"]:
            try:
                with archive.open(entry) as file:
                    existing[name] = (sha256_of(file), entry.file_size)
            except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError):
                continue  # an empty SHA-256 counts as a changed file
    return existing


@contextmanager
def _opened(source: Path | zipfile.ZipFile) -> Iterator[zipfile.ZipFile]:
    """Open a zip by its path and close it again; one that is open already stays open."""
    if isinstance(source, zipfile.ZipFile):
        yield source
        return
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError) as problem:
        reason = str(problem) or type(problem).__name__
        raise DataError(source, "it is not a complete zip file", reason, "Fetch it again.") from problem
    with archive:
        yield archive


def _top_folder(archive: zipfile.ZipFile) -> str | None:
    """Return what stands before the names of the bundle's files, `""` or `folder/`; None without a manifest."""
    names = [name for name in archive.namelist() if PurePosixPath(name).name == MANIFEST and name.count("/") < 2]
    return min(names, key=len).removesuffix(MANIFEST) if names else None


def _name_of(source: Path | zipfile.ZipFile) -> str:
    return str(source.filename) if isinstance(source, zipfile.ZipFile) else str(source)
