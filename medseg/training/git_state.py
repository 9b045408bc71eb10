"""Read the commit of a git repository from its files.

git itself is not run: it starts programs that the configuration of a repository names (filters, hooks, monitors), and
a run may be started in a folder that somebody else made.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_OBJECT_ID = re.compile(r"[0-9a-f]{40}")
_REFERENCE = re.compile(r"ref: (refs/[\w./+@=-]+)")
_MAX_BYTES = 64 * 2**20  # of an index or of packed references
_SECONDS = 5.0  # how long comparing the files may take
_ENTRY = struct.Struct(">8xII8xI8xI20sH")  # mtime, its nanoseconds, mode, size, object, flags
_ASSUME_VALID, _EXTENDED = 0x8000, 0x4000
_SKIP_WORKTREE, _INTENT_TO_ADD = 0x4000, 0x2000
_SUBMODULE = 0o160000


@dataclass(frozen=True)
class _Entry:
    name: str
    mtime: tuple[int, int]
    mode: int
    size: int
    object_id: bytes
    skipped: bool
    added: bool


def git_state() -> dict[str, Any] | None:
    """Return the commit of the working directory's repository, else of this package's, and whether files differ.

    `dirty` is true if a tracked file differs from the commit or something is staged, and None where that could not be
    read in a few seconds. Untracked files do not count. None where no tracked files are there.

    Example:
        >>> git_state()  # doctest: +SKIP
        {'commit': '2f1d...', 'dirty': False}
    """
    package = Path(__file__).resolve()
    for start, tracked in ((Path.cwd(), Path.cwd()), (package.parent, package)):
        root = next((folder for folder in (start, *start.parents) if (folder / ".git").exists()), None)
        if root is None:
            continue
        try:
            folder, common = _git_folders(root / ".git")
            commit = _commit(folder, common)
            content = _read(folder / "index")
            entries = list(_entries(content)) if content else []
        except (OSError, ValueError, struct.error, IndexError):
            continue
        prefix = tracked.relative_to(root).as_posix()
        if commit and any(prefix == "." or f"{entry.name}/".startswith(f"{prefix}/") for entry in entries):
            dirty = _is_staged(content, common, commit) or _is_dirty(root, folder, entries)
            return {"commit": commit, "dirty": dirty}
    return None


def _git_folders(path: Path) -> tuple[Path, Path]:
    """Return the git folder of a work tree, and the one that it shares with the other work trees."""
    folder = _named_folder(path, path.parent, "gitdir:") if path.is_file() else path
    common = folder / "commondir"
    return folder, _named_folder(common, folder) if common.is_file() else folder


def _named_folder(file: Path, base: Path, prefix: str = "") -> Path:
    name = _read(file).decode().removeprefix(prefix).strip()
    if name.startswith(("\\\\", "//")):  # another computer would be asked, on Windows with the user's login
        raise ValueError(name)
    return base / name


def _commit(folder: Path, common: Path) -> str | None:
    head = _read(folder / "HEAD").decode().strip()
    for _ in range(5):  # a reference may name another one
        if _OBJECT_ID.fullmatch(head):
            return head
        match = _REFERENCE.fullmatch(head)
        if match is None or ".." in match[1]:
            return None
        path = next((base / match[1] for base in (folder, common) if (base / match[1]).is_file()), None)
        if path is None:
            packed = re.search(
                rf"^([0-9a-f]{{40}}) {re.escape(match[1])}$", _read(common / "packed-refs").decode(), re.M
            )
            return packed[1] if packed else None
        head = _read(path).decode().strip()
    return None


def _read(path: Path) -> bytes:
    """Read a regular file that is not too large; a pipe would wait forever."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
        raise ValueError(path)
    return path.read_bytes()


def _entries(content: bytes) -> Iterator[_Entry]:
    """Yield the tracked files of an index (gitformat-index, versions 2 to 4)."""
    signature, version, count = struct.unpack_from(">4sII", content)
    if signature != b"DIRC" or version not in (2, 3, 4):
        raise ValueError(version)
    position, name = 12, b""
    for _ in range(count):
        start = position
        seconds, nanoseconds, mode, size, object_id, flags = _ENTRY.unpack_from(content, position)
        position += _ENTRY.size
        extended = 0
        if flags & _EXTENDED:
            (extended,) = struct.unpack_from(">H", content, position)
            position += 2
        if version == 4:
            cut, position = _variable_length(content, position)
            name = name[: len(name) - cut]
        else:
            name = b""
        end = content.index(b"\0", position)
        name += content[position:end]
        position = end + 1 if version == 4 else start + (end - start + 8) // 8 * 8
        skipped = bool(flags & _ASSUME_VALID or extended & _SKIP_WORKTREE)
        added = bool(extended & _INTENT_TO_ADD)
        yield _Entry(os.fsdecode(name), (seconds, nanoseconds), mode, size, object_id, skipped, added)


def _variable_length(content: bytes, position: int) -> tuple[int, int]:
    byte = content[position]
    value = byte & 0x7F
    while byte & 0x80:
        position += 1
        byte = content[position]
        value = ((value + 1) << 7) | (byte & 0x7F)
    return value, position + 1


def _is_dirty(root: Path, folder: Path, entries: list[_Entry]) -> bool | None:
    """Return whether a file differs from the index."""
    written = (folder / "index").stat().st_mtime
    deadline = time.monotonic() + _SECONDS
    for entry in entries:
        if time.monotonic() > deadline:
            return None
        if entry.skipped or stat.S_IFMT(entry.mode) == _SUBMODULE:
            continue
        if entry.added or _differs(root, entry, written):
            return True
    return False


def _is_staged(content: bytes, common: Path, commit: str) -> bool:
    """Return whether the index differs from the commit, as far as its copy of the commit's tree tells.

    `git commit` and `git checkout` write that tree into the index, `git add` marks it as no longer valid.
    """
    tree = re.search(rb"TREE.{4}\x00(-?\d+) \d+\n(.{20})?", content, re.DOTALL)
    if tree is None:
        return False
    if tree[1] == b"-1":
        return True
    path = common / "objects" / commit[:2] / commit[2:]
    if not path.is_file() or tree[2] is None:  # packed
        return False
    header = zlib.decompressobj().decompress(_read(path), 200)
    return f"tree {tree[2].hex()}".encode() not in header


def _differs(root: Path, entry: _Entry, index_written: float) -> bool:
    path = root / entry.name
    try:
        status = path.lstat()
        same_time = (int(status.st_mtime), status.st_mtime_ns % 10**9) == entry.mtime
        if same_time and status.st_size & 0xFFFFFFFF == entry.size and status.st_mtime < index_written:
            return False
        data = os.fsencode(path.readlink()) if stat.S_ISLNK(status.st_mode) else _read(path)
    except (OSError, ValueError):
        return True
    # With Windows' line ends the file and git's copy of it differ in the ends alone.
    texts = (data, data.replace(b"\r\n", b"\n"))
    return all(hashlib.sha1(b"blob %d\0" % len(text) + text).digest() != entry.object_id for text in texts)
