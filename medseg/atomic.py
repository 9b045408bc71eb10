"""Write files that are complete or absent: written to a temporary name beside the target, synced, then moved."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from medseg.errors import OutputError
from medseg.file_names import walk

CLAIM = ".medseg-output.json"

_FORMULA = re.compile(r"[=+@\t\r]|-(?![\d.e+-]+$|inf$)")
_WAITS = (0.05, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5) if os.name == "nt" else ()  # seconds before each further try


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on leaving, move it to `path`, or remove it after an error.

    The parts before the last extension are kept in front and all extensions at the end, so that
    libraries that go by the extension (`.nii.gz`) write the right format.

    Raises:
        OutputError: the folder cannot be created or written.
    """
    path = Path(path)
    writable_folder(path.parent)
    stem, dot, extensions = path.name.partition(".")
    partial = path.with_name(f".{stem}.{uuid.uuid4().hex[:8]}.partial{dot}{extensions}")
    try:
        yield partial
        _sync(partial)
        move(partial, path)
    except OSError as error:
        raise OutputError(
            path, "the file cannot be written", str(error), "Free space or choose another path."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(root: str | Path) -> Iterator[Path]:
    """Yield a folder beside `root` to fill; on leaving, rename it to `root`, or remove it after an error.

    Raises:
        OutputError: `root` holds files, or cannot be written.
    """
    root = Path(root)
    if root.exists() and any(root.iterdir()):
        raise OutputError(root, "the folder must be new or empty, but it holds files", "", "Choose another folder.")
    writable_folder(root.parent)
    partial = root.with_name(f".{root.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield partial
        if root.exists():
            root.rmdir()
        move(partial, root)
    except OSError as error:
        if root.is_dir() and any(root.iterdir()):
            problem = "another process wrote this folder in the meantime"
            raise OutputError(root, problem, "", "Choose another folder.") from error
        raise OutputError(root, "the folder cannot be written", str(error), "Choose another path.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def move(source: str | Path, target: str | Path) -> None:
    """Rename a file or a folder; on Windows, retry while another process, such as a virus scanner, has it open.

    Raises:
        OSError: it cannot be renamed.
    """
    for wait in (*_WAITS, None):
        try:
            Path(source).replace(target)
            return
        except PermissionError:
            if wait is None:
                raise
            time.sleep(wait)


def relative_path(path: str | Path, folder: str | Path) -> str:
    """Return a path as seen from a folder, with `/` between its parts; absolute where it lies on another drive."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # Windows has no way from one drive to another
        return Path(path).absolute().as_posix()


def remove_partial(folder: str | Path) -> None:
    """Remove what killed writers left under `folder`. No other process may be writing there now."""
    for path in Path(folder).rglob(".*.partial*"):
        if path.is_file():
            path.unlink()


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def writable_folder(folder: str | Path) -> Path:
    """Create `folder` if it does not exist and check that files can be created in it.

    Raises:
        OutputError: it cannot be created, is no folder, or does not allow new files.
    """
    folder = Path(folder)
    probe = folder / f".writable.{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        obstacle = next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None)
        came, cure = str(error), "correct its permissions"
        if obstacle is not None:
            came, cure = "this is a file" if obstacle == folder else f"{obstacle} is a file", "move the file away"
        raise OutputError(folder, "the folder cannot be written", came, f"Choose another path, or {cure}.") from error
    return folder


def require_new(paths: Iterable[Path], overwrite: bool = False) -> None:
    """Refuse to replace files, unless the user says so.

    Raises:
        OutputError: one of them exists, and `overwrite` is not set.
    """
    present = [] if overwrite else [path for path in paths if path.exists()]
    if present:
        others = f"and {len(present) - 1} more" if len(present) > 1 else ""
        raise OutputError(present[0], "the file exists already", others, "Choose another path, or add --overwrite.")


def claim_folder(
    folder: str | Path, command: str, source: str | Path, takes_more: Sequence[str] = (), **settings: Any
) -> Path:
    """Take an empty folder for the output of one command, or one in which the same command was stopped.

    Args:
        folder: is created if it does not exist.
        command: its name, for errors.
        source: what it reads; a path.
        takes_more: settings that only let the command read more of its source, so that they may be added later.
        settings: what else its output depends on.

    Raises:
        OutputError: the folder holds anything else, or cannot be written.
    """
    folder, claim = writable_folder(folder), Path(folder) / CLAIM
    key = hashlib.sha256(str(Path(source).resolve()).encode()).hexdigest()[:16]
    record = {"command": command, "source": Path(source).resolve().name, "settings": settings, "key": key}
    present: Any = {}
    if claim.is_file():
        with contextlib.suppress(ValueError):
            present = json.loads(claim.read_text(encoding="utf-8"))
    present = present if isinstance(present, dict) else {}
    before = present.get("settings") or {}
    added = {name: before[name] for name in takes_more if name in before and not before[name]}
    if present == json.loads(json.dumps({**record, "settings": {**settings, **added}})):
        if added:
            write_json(claim, record)
        return folder
    if walk(folder):  # what failed before it wrote anything keeps no other command out
        problem, origin, fix = "the folder holds other files", "", "Choose an empty or a new folder."
        if claim.is_file():
            problem = "the folder holds the output of another command, other settings or another source"
            origin = " of ".join(str(present[key]) for key in ("command", "source") if key in present)
            fix = "Choose another folder, or remove it."
        raise OutputError(folder, problem, origin, fix)
    write_json(claim, record)
    return folder


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, complete or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` to `path` as indented JSON, complete or not at all; NaN is not JSON and is refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_csv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table to `path`, whole or not at all; None is an empty field.

    A text that a spreadsheet would take for a formula gets an apostrophe before it: names come from anyone's files.
    """

    def plain(row: Sequence[Any]) -> list[Any]:
        return [f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell for cell in row]

    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(plain(header))
        writer.writerows(map(plain, rows))
