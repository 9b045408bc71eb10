"""The files of a bundle, a folder or a zip: their names, sizes and bytes. No link is followed, nothing is unpacked."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from medseg.errors import BundleError, printable
from medseg.file_names import is_link
from medseg.findings import Finding, error, warning
from medseg.inspection.archive import casefolded, check_archive, portability_problem

METADATA = "configs/metadata.json"
MAX_FILES = 50_000


class Contents(ABC):
    """The files of a bundle.

    Args:
        path: the folder or the zip.
        kind: `folder` or `zip`.
        sizes: bytes of each file, by its name in the bundle.
        findings: what is wrong with names, links and the zip itself.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self.kind = kind
        self.sizes: dict[str, int] = {}
        self.findings: list[Finding] = []

    @abstractmethod
    def open(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """Open a file that can be read and sought in."""

    def read(self, name: str, limit: int) -> bytes:
        """Return the first bytes of a file."""
        with self.open(name) as file:
            return file.read(limit)


class Folder(Contents):
    """A folder. A link is a finding, and is followed only to a file within the folder."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "folder")
        self.root = path.resolve()
        names: dict[str, str] = {}
        for count, name in enumerate(self._walk()):
            if count >= MAX_FILES:
                self._finding(error("too-many-files", path.name, f"it has more than {MAX_FILES} files"))
                return
            problem = portability_problem(name)
            if problem is not None:
                message = f"its name does not work on every system: {problem}"
                self._finding(warning("name-unportable", printable(name), message, "Rename it."))
            if names.setdefault(casefolded(name), name) != name:
                message = f"some systems take it for {printable(names[casefolded(name)])}"
                self._finding(warning("name-unportable", printable(name), message, "Rename it."))
            self._add(name)

    def _finding(self, finding: Finding) -> None:
        self.findings.append(finding)

    def _walk(self) -> Iterator[str]:
        def refuse(problem: OSError) -> None:
            message = f"it cannot be read: {problem.strerror}"
            self._finding(error("unreadable", printable(str(problem.filename)), message))

        for location, folders, files in os.walk(self.root, onerror=refuse):
            folder = Path(location)
            for name in sorted(folders):
                if is_link(folder / name):
                    self._link((folder / name).relative_to(self.root).as_posix(), folder / name)
            folders[:] = sorted(name for name in folders if not is_link(folder / name))
            for name in sorted(files):
                yield (folder / name).relative_to(self.root).as_posix()

    def _add(self, name: str) -> None:
        path = self.root / name
        try:
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                if not self._link(name, path):
                    return
                status = path.stat()
        except OSError as problem:
            self._finding(error("unreadable", printable(name), f"it cannot be read: {problem.strerror}"))
            return
        if stat.S_ISREG(status.st_mode):
            self.sizes[name] = status.st_size
        else:
            self._finding(error("special-file", printable(name), "it is neither a file nor a folder", "Remove it."))

    def _link(self, name: str, path: Path) -> bool:
        """Add the finding on a link, and return True if it leads to a file within the bundle."""
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):
            self._finding(error("link-outside", printable(name), "it is a link that leads nowhere", "Remove it."))
            return False
        if not target.is_relative_to(self.root):
            message = f"it is a link out of the bundle, to {printable(str(target))}"
            self._finding(error("link-outside", printable(name), message, "Put the file itself there."))
            return False
        self._finding(warning("link", printable(name), "it is a link, which not every system has", "Copy the file."))
        return target.is_file()

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a file that can be read and sought in."""
        with (self.root / name).open("rb") as file:
            yield file


class Zip(Contents):
    """A zip with a bundle in it, at its top or in its only folder. Nothing is read of a zip that is unfit."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "zip")
        self.findings += check_archive(path)
        self._infos: dict[str, zipfile.ZipInfo] = {}
        if self.findings:
            return
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
        names, prefix = [info.filename for info in infos], ""
        tops = {name.split("/")[0] for name in names}
        if METADATA not in names and len(tops) == 1 and all("/" in name for name in names):
            prefix = f"{tops.pop()}/"
        self._infos = {info.filename.removeprefix(prefix): info for info in infos}
        self.sizes = {name: info.file_size for name, info in self._infos.items()}

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a file that can be read and sought in."""
        info = self._infos[name]  # the table is read once: reading it for each file takes long for many files
        with self.path.open("rb") as file:
            packed = _packed(file, info)
            if info.compress_type == zipfile.ZIP_STORED:
                yield cast("BinaryIO", packed)
                return
            with zipfile.ZipExtFile(packed, "r", info) as member:
                yield cast("BinaryIO", member)


def _packed(file: IO[bytes], info: zipfile.ZipInfo) -> IO[bytes]:
    """Return the bytes of an entry, as they are in the zip, as a file of its own, in which seeking costs nothing."""
    file.seek(info.header_offset)
    header = file.read(30)
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return cast("IO[bytes]", io.BufferedReader(_Slice(file, info.header_offset + 30 + names, info.compress_size)))


class _Slice(io.RawIOBase):
    """Part of a file as a file."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file = file
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        base = {0: 0, 1: self._position, 2: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer)).cast("B")
        count = max(0, min(len(view), self._size - self._position))
        self._file.seek(self._start + self._position)
        data = self._file.read(count)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def open_contents(path: str | Path) -> Contents:
    """Return the files of a bundle.

    Raises:
        BundleError: there is nothing, or something else than a folder or a zip.
    """
    path = Path(path)
    if path.is_dir():
        return Folder(path)
    fix = "Give the folder of a bundle, or a zip of it."
    if not path.is_file():
        raise BundleError(path, "there is no folder and no file of this name", fix=fix)
    with path.open("rb") as file:
        if file.read(2) != b"PK" and path.suffix.lower() != ".zip":
            raise BundleError(path, "this file is no zip", fix=fix)
    return Zip(path)
