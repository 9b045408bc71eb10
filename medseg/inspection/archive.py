"""A stranger's zip: find what is wrong with it, and unpack it whole or not at all."""

from __future__ import annotations

import lzma
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from medseg.atomic import atomic_folder
from medseg.errors import BundleError, printable
from medseg.findings import Finding, error

# What reading a file of a folder or a zip raises: damaged, encrypted, or compressed in a way that Python does not read.
READ_ERRORS = (
    OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError
)  # fmt: skip
MAX_ENTRIES = 20_000
MAX_BYTES = 64 * 2**30
MAX_RATIO = 200  # deflate reaches 1000 on zeros; label maps and configs stay far below
_SMALL = 2**20  # an entry that unpacks to less is no bomb
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_FIX = "Ask its maker for another copy."
_DEVICES = {
    *("con", "prn", "aux", "nul", "conin$", "conout$"),
    *(f"{port}{number}" for port in ("com", "lpt") for number in range(10)),
}
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f]')
_MAX_NAME = 240


def casefolded(name: str) -> str:
    """Return what systems that ignore case, or compose letters, take a name for.

    Example:
        >>> casefolded("Models/Model.PT") == casefolded("models/model.pt")
        True
    """
    return unicodedata.normalize("NFKC", name).casefold()


def portability_problem(name: str) -> str | None:
    """Return why a relative path, with `/` between its parts, must not become a file; None if it may.

    Example:
        >>> portability_problem("../../.bashrc")
        'it climbs out of the folder'
        >>> portability_problem("configs/train.json") is None
        True
    """
    if not name:
        return "it is empty"
    if name.startswith(("/", "\\", "~")) or re.match(r"[A-Za-z]:", name):
        return "it is an absolute path"
    if ".." in re.split(r"[/\\]", name):
        return "it climbs out of the folder"
    if _FORBIDDEN.search(name):
        return "it has a character that not every system allows in a file name"
    if len(name) > _MAX_NAME:
        return f"it has more than {_MAX_NAME} characters"
    for part in name.rstrip("/").split("/"):
        if part in ("", "."):
            return "it has an empty part"
        if part.endswith((".", " ")):
            return "a part ends with a dot or a blank, which Windows drops"
        if part.split(".")[0].strip().lower() in _DEVICES:
            return "a part is the name of a device on Windows"
    return None


def check_archive(path: str | Path) -> list[Finding]:
    """Find what makes a zip unfit to be unpacked, by its tables alone; nothing is unpacked.

    It looks for names that climb out, are absolute, name a device or the same file twice; links; encrypted entries;
    bombs by number, size and ratio, and entries that share bytes; a truncated file; tables that contradict each other.

    Args:
        path: the file.
    """
    try:
        with zipfile.ZipFile(path) as archive, Path(path).open("rb") as file:
            return [*_entries(archive.infolist()), *_layout(archive, file, Path(path).stat().st_size)]
    except (*READ_ERRORS, ValueError) as problem:
        return [error("zip-damaged", Path(path).name, f"it is no whole zip file: {problem}", _FIX)]


def _entries(infos: list[zipfile.ZipInfo]) -> Iterator[Finding]:
    if len(infos) > MAX_ENTRIES:
        yield error("zip-bomb", "", f"it has {len(infos)} entries, more than {MAX_ENTRIES}", _FIX)
        return
    names: dict[str, str] = {}
    folders: set[str] = set()
    for info in infos:
        name, raw, location = info.filename, info.orig_filename, printable(info.filename)
        problem = portability_problem(name.removesuffix("/")) or ("it has a zero byte" if "\0" in raw else None)
        if problem is not None:
            yield error("zip-name", location, f"its name may not be unpacked: {problem}", _FIX)
        if "\\" in raw:
            yield error("zip-name", location, "its name has a backslash, which separates folders on Windows", _FIX)
        key = casefolded(name.rstrip("/"))
        if key in names and not (name.endswith("/") and names[key].endswith("/")):
            yield error("zip-duplicate", location, f"{printable(names[key])} would be the same file", _FIX)
        names.setdefault(key, name)
        if not name.endswith("/"):
            folders.update(key.rsplit("/", depth)[0] for depth in range(1, key.count("/") + 1))
        yield from _kind(info, location)
        if info.file_size > _SMALL and info.file_size > MAX_RATIO * max(1, info.compress_size):
            ratio = info.file_size // max(1, info.compress_size)
            yield error("zip-bomb", location, f"it unpacks to {ratio} times its size", _FIX)
    for key in sorted(folders):
        if key in names and not names[key].endswith("/"):
            yield error("zip-duplicate", printable(names[key]), "it is both a file and the folder of another", _FIX)
    total = sum(info.file_size for info in infos)
    if total > MAX_BYTES:
        yield error("zip-bomb", "", f"it unpacks to {total / 2**30:.0f} GiB, more than {MAX_BYTES >> 30}", _FIX)


def _kind(info: zipfile.ZipInfo, location: str) -> Iterator[Finding]:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        yield error("zip-link", location, "it is a link", "Pack the file itself.")
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        yield error("zip-special", location, "it is neither a file nor a folder", _FIX)
    if info.flag_bits & 0x1 or info.flag_bits & 0x40:
        yield error("zip-encrypted", location, "it is encrypted", "Decrypt it first; bundles are shared in the open.")
    elif info.compress_type not in _METHODS:
        yield error("zip-method", location, "it is neither stored nor deflated", "Pack it again with deflate.")


def _layout(archive: zipfile.ZipFile, file: BinaryIO, size: int) -> Iterator[Finding]:
    """Find entries whose own header contradicts the table at the end of the zip, and such as share bytes."""
    end = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        location = printable(info.filename)
        file.seek(info.header_offset)
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            yield error("zip-damaged", location, "its bytes are not in the file", _FIX)
            return
        flags, method, crc, packed, unpacked, name_length, extra = struct.unpack("<6xHH4xIIIHH", header)
        name = file.read(name_length)
        if info.header_offset < end:
            yield error("zip-bomb", location, "it shares its bytes with another entry", _FIX)
        end = info.header_offset + 30 + name_length + extra + info.compress_size
        if end > size:
            yield error("zip-damaged", location, "the file ends before it does", _FIX)
            return
        text = name.decode("utf-8" if flags & 0x800 else "cp437", "replace")
        streamed = bool(flags & 0x8)  # then sizes and checksum come behind the bytes
        sizes = (packed, unpacked) in ((info.compress_size, info.file_size), (0xFFFFFFFF, 0xFFFFFFFF))
        agrees = text == info.orig_filename and method == info.compress_type
        if not (agrees and (streamed or (sizes and crc == info.CRC))):
            yield error("zip-contradiction", location, "its own header contradicts the zip's table", _FIX)


def unpack(path: str | Path, folder: str | Path) -> Path:
    """Unpack a zip in which `check_archive` finds nothing wrong, completely or not at all.

    Args:
        path: the file.
        folder: a new or an empty folder. The entries keep their names in it.

    Returns:
        `folder`.

    Raises:
        BundleError: the zip is unfit, or its bytes are not what its table says; see `check_archive`.
        OutputError: `folder` holds files, or cannot be written.
    """
    findings = check_archive(path)
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        location = f"{findings[0].location}: " if findings[0].location else ""
        problem = f"this zip is not safe to unpack: {location}{findings[0].message}{more}"
        raise BundleError(path, problem, fix=_FIX)
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
                message = f"this is no whole zip file: {printable(info.filename)}: {problem}"
                raise BundleError(path, message, fix=_FIX) from problem
    return Path(folder)


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    remaining = info.file_size
    with archive.open(info) as source, target.open("xb") as file:
        while block := source.read(min(2**20, remaining + 1)):
            remaining -= len(block)
            if remaining < 0:
                raise zipfile.BadZipFile("it unpacks to more than the table says")
            file.write(block)
    if remaining:
        raise zipfile.BadZipFile("it is cut short")
