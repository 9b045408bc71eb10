"""Zip files of others: what is wrong with one, and unpacking it whole or not at all."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from medseg.atomic import atomic_folder
from medseg.errors import BundleError
from medseg.findings import Finding, error
from medseg.inspection.names import fault, folded, printable

MOST_ENTRIES = 20_000
MOST_BYTES = 64 * 2**30
MOST_RATIO = 200  # deflate reaches 1000 on zeros; label maps and configs stay far below
_SMALL = 2**20  # nothing that unpacks to less is a bomb
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_REMEDY = "Ask for another copy, from whoever made it."


def check_archive(path: str | Path) -> list[Finding]:
    """What makes a zip unfit to be unpacked, by its tables alone: nothing is unpacked.

    Names that climb out, are absolute, mean a device or the same file twice; links; encrypted entries; bombs by number,
    size and ratio, and such as let entries share their bytes; a file cut short; tables that contradict each other.

    Args:
        path: the file.
    """
    try:
        with zipfile.ZipFile(path) as archive, Path(path).open("rb") as file:
            return [*_entries(archive.infolist()), *_layout(archive, file, Path(path).stat().st_size)]
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as problem:
        return [error("zip-damaged", Path(path).name, f"it is no whole zip file: {problem}", _REMEDY)]


def _entries(infos: list[zipfile.ZipInfo]) -> Iterator[Finding]:
    if len(infos) > MOST_ENTRIES:
        yield error("zip-bomb", "", f"it has {len(infos)} entries, more than {MOST_ENTRIES}", _REMEDY)
        return
    seen: dict[str, str] = {}
    folders: set[str] = set()
    total = 0
    for info in infos:
        name, location = info.filename, printable(info.filename)
        raw = info.orig_filename
        why = fault(name.removesuffix("/")) or ("it has a zero byte" if "\0" in raw else None)
        if why is not None:
            yield error("zip-name", location, f"its name may not be unpacked: {why}", _REMEDY)
        if "\\" in raw:
            yield error("zip-name", location, "its name has a backslash, which means another place on Windows", _REMEDY)
        key = folded(name.rstrip("/"))
        if key in seen and not (name.endswith("/") and seen[key].endswith("/")):
            yield error("zip-duplicate", location, f"{printable(seen[key])} would be the same file", _REMEDY)
        seen.setdefault(key, name)
        if not name.endswith("/"):
            folders.update(key.rsplit("/", depth)[0] for depth in range(1, key.count("/") + 1))
        yield from _kind(info, location)
        total += info.file_size
        if info.file_size > _SMALL and info.file_size > MOST_RATIO * max(1, info.compress_size):
            times = info.file_size // max(1, info.compress_size)
            yield error("zip-bomb", location, f"it unpacks to {times} times its size", _REMEDY)
    for key in sorted(folders):
        if key in seen and not seen[key].endswith("/"):
            yield error("zip-duplicate", printable(seen[key]), "it is a file, and the folder of another", _REMEDY)
    if total > MOST_BYTES:
        yield error("zip-bomb", "", f"it unpacks to {total / 2**30:.0f} GiB, more than {MOST_BYTES >> 30}", _REMEDY)


def _kind(info: zipfile.ZipInfo, location: str) -> Iterator[Finding]:
    mode = info.external_attr >> 16
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        yield error("zip-link", location, "it is a link", "Pack the file itself.")
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        yield error("zip-special", location, "it is neither a file nor a folder", _REMEDY)
    if info.flag_bits & 0x1 or info.flag_bits & 0x40:
        yield error("zip-encrypted", location, "it is encrypted", "Decrypt it first; bundles are shared in the open.")
    elif info.compress_type not in _METHODS:
        yield error("zip-method", location, "it is neither stored nor deflated", "Pack it again with deflate.")


def _layout(archive: zipfile.ZipFile, file: BinaryIO, size: int) -> Iterator[Finding]:
    """What the entries' own heads say must be what the table at the end says, and no two may share bytes."""
    end = 0
    for info in sorted(archive.infolist(), key=lambda one: one.header_offset):
        location = printable(info.filename)
        file.seek(info.header_offset)
        head = file.read(30)
        if len(head) < 30 or head[:4] != b"PK\x03\x04":
            yield error("zip-damaged", location, "its bytes are not in the file", _REMEDY)
            return
        flags, method, crc, packed, whole, short, extra = struct.unpack("<6xHH4xIIIHH", head)
        name = file.read(short)
        start = info.header_offset + 30 + short + extra
        if info.header_offset < end:
            yield error("zip-bomb", location, "it shares its bytes with another entry", _REMEDY)
        end = start + info.compress_size
        if end > size:
            yield error("zip-damaged", location, "the file ends before it does", _REMEDY)
            return
        text = name.decode("utf-8" if flags & 0x800 else "cp437", "replace")
        later = bool(flags & 0x8)  # sizes and checksum stand behind the bytes
        sizes = (packed, whole) in ((info.compress_size, info.file_size), (0xFFFFFFFF, 0xFFFFFFFF))
        same = text == info.orig_filename and method == info.compress_type and (later or (sizes and crc == info.CRC))
        if not same:
            yield error("zip-contradiction", location, "its own head says something else than the table", _REMEDY)


def unpack(path: str | Path, folder: str | Path) -> Path:
    """Unpack a zip that `check_archive` finds nothing wrong with; whole, or nothing is left.

    Args:
        path: the file.
        folder: a new or an empty folder. What the zip holds goes there as it is named.

    Returns:
        `folder`.

    Raises:
        BundleError: the zip is unfit, or its bytes are not what its table says; see `check_archive`.
        OutputError: `folder` holds files, or cannot be written.
    """
    found = check_archive(path)
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        location = f"{found[0].location}: " if found[0].location else ""
        raise BundleError(path, "must be a zip that is safe to unpack", f"{location}{found[0].message}{more}", _REMEDY)
    with atomic_folder(folder) as partial, zipfile.ZipFile(path) as archive:
        partial.mkdir()
        for info in archive.infolist():
            target = partial / info.filename
            if info.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                _write(archive, info, target)
            except (zipfile.BadZipFile, zlib.error, EOFError) as problem:
                name = printable(info.filename)
                raise BundleError(path, "must be a whole zip file", f"{name}: {problem}", _REMEDY) from problem
    return Path(folder)


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    left = info.file_size
    with archive.open(info) as source, target.open("xb") as file:
        while block := source.read(min(2**20, left + 1)):
            left -= len(block)
            if left < 0:
                raise zipfile.BadZipFile("it unpacks to more than the table says")
            file.write(block)
    if left:
        raise zipfile.BadZipFile("it is cut short")
