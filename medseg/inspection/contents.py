"""The files of a bundle, be it a folder or a zip: names, sizes and bytes; nothing is followed or unpacked."""

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

from medseg.errors import BundleError
from medseg.findings import Finding, error, warning
from medseg.inspection.archive import check_archive
from medseg.inspection.names import fault, folded, printable

METADATA = "configs/metadata.json"
MOST_FILES = 50_000


class Contents(ABC):
    """The files of a bundle.

    Args:
        path: the folder or the zip.
        kind: `folder` or `zip`.
        sizes: bytes of each file, by its name in the bundle.
        findings: what is wrong with names, links and the zip itself.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind
        self.sizes: dict[str, int] = {}
        self.findings: list[Finding] = []

    @abstractmethod
    def opened(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """A file, to be read and sought in."""

    def read(self, name: str, most: int) -> bytes:
        """The first bytes of a file."""
        with self.opened(name) as file:
            return file.read(most)


class Folder(Contents):
    """A folder. Links are looked at and not followed, but for those to a file within it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "folder")
        self.root = path.resolve()
        seen: dict[str, str] = {}
        for count, name in enumerate(self._walk()):
            if count >= MOST_FILES:
                self.findings.append(error("too-many-files", path.name, f"it has more than {MOST_FILES} files"))
                return
            why = fault(name)
            if why is not None:
                said = f"its name cannot go everywhere: {why}"
                self.findings.append(warning("name-unportable", printable(name), said, "Rename it."))
            if seen.setdefault(folded(name), name) != name:
                self.findings.append(
                    warning(
                        "name-unportable",
                        printable(name),
                        f"some systems take it for {printable(seen[folded(name)])}",
                    )
                )
            self._file(name)

    def _walk(self) -> Iterator[str]:
        def refuse(problem: OSError) -> None:
            self.findings.append(
                error("unreadable", printable(str(problem.filename)), f"it cannot be read: {problem.strerror}")
            )

        for folder, folders, files in os.walk(self.root, onerror=refuse):
            here = Path(folder)
            for name in sorted(folders):
                if _is_link(here / name):
                    self._link((here / name).relative_to(self.root).as_posix(), here / name)
            folders[:] = sorted(name for name in folders if not _is_link(here / name))
            for name in sorted(files):
                yield (here / name).relative_to(self.root).as_posix()

    def _file(self, name: str) -> None:
        path = self.root / name
        try:
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                if not self._link(name, path):
                    return
                status = path.stat()
        except OSError as problem:
            self.findings.append(error("unreadable", printable(name), f"it cannot be read: {problem.strerror}"))
            return
        if stat.S_ISREG(status.st_mode):
            self.sizes[name] = status.st_size
        else:
            self.findings.append(
                error("special-file", printable(name), "it is neither a file nor a folder", "Remove it.")
            )

    def _link(self, name: str, path: Path) -> bool:
        """Whether a link leads to a file within the bundle."""
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):
            self.findings.append(
                error("link-outside", printable(name), "it is a link that leads nowhere", "Remove it.")
            )
            return False
        if not target.is_relative_to(self.root):
            said = f"it is a link out of the bundle, to {printable(str(target))}"
            self.findings.append(error("link-outside", printable(name), said, "Put the file itself there."))
            return False
        self.findings.append(
            warning("link", printable(name), "it is a link, which not every system has", "Put the file there.")
        )
        return target.is_file()

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """A file, to be read and sought in."""
        with (self.root / name).open("rb") as file:
            yield file


def _is_link(path: Path) -> bool:
    """Whether a folder is a link, or what Windows has for it and newer versions of Python know."""
    return path.is_symlink() or bool(getattr(os.path, "isjunction", lambda one: False)(path))


class Packed(Contents):
    """A zip with a bundle in it, at its top or in its one folder. Of a zip that is unfit nothing is read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "zip")
        self.findings += check_archive(path)
        self._prefix = ""
        if self.findings:
            return
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
        names = [info.filename for info in infos]
        tops = {name.split("/")[0] for name in names}
        if METADATA not in names and len(tops) == 1:
            self._prefix = f"{next(iter(tops))}/"
        self.sizes = {info.filename.removeprefix(self._prefix): info.file_size for info in infos}

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """A file, to be read and sought in."""
        with self.path.open("rb") as file, zipfile.ZipFile(file) as archive:
            info = archive.getinfo(self._prefix + name)
            if info.compress_type == zipfile.ZIP_STORED:
                yield cast("BinaryIO", _part(file, info))
                return
            with archive.open(info) as member:
                yield cast("BinaryIO", member)


def _part(file: IO[bytes], info: zipfile.ZipInfo) -> IO[bytes]:
    """A stored entry as a file of its own, in which seeking costs nothing."""
    file.seek(info.header_offset)
    head = file.read(30)
    start = info.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    return cast("IO[bytes]", io.BufferedReader(_Slice(file, start, info.file_size)))


class _Slice(io.RawIOBase):
    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        base = {0: 0, 1: self._at, 2: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer)).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        self._file.seek(self._start + self._at)
        data = self._file.read(count)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def contents(path: str | Path) -> Contents:
    """The files of a bundle.

    Raises:
        BundleError: there is nothing, or something else than a folder or a zip.
    """
    path = Path(path)
    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        raise BundleError(path, "must be a bundle: a folder or a zip", "nothing of that name")
    with path.open("rb") as file:
        if file.read(2) != b"PK" and path.suffix.lower() != ".zip":
            raise BundleError(path, "must be a bundle: a folder or a zip", "another kind of file")
    return Packed(path)
