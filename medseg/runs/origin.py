"""Remember which bundles and runs are the user's own: those that were begun or created on this machine.

Kept are empty files, named by a SHA-256, in the user's state folder, where a bundle cannot write.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import platformdirs

from medseg.errors import OutputError
from medseg.file_names import is_link
from medseg.search_path import search_path

STATE_VARIABLE = "MEDSEG_STATE_DIR"  # names another folder for what medseg remembers on this machine
CODE = (".py", ".pyc", ".pyo", ".pyw", ".pyd", ".so", ".dll", ".dylib")


def remember_start(folder: str | Path) -> None:
    """Remember that the run in this folder was begun here with these configs; silent if that fails."""
    with contextlib.suppress(OSError):
        _remember(_digest(folder))


def was_started_here(folder: str | Path) -> bool:
    """Return True if a run was begun on this machine by this user with exactly the configs that it holds now.

    A folder with Python code, or a link to a folder, is none: a run has neither, and Python would import from it.
    """
    try:
        has_code = any(
            path.suffix.lower() in CODE or (is_link(path) and path.is_dir()) for path in Path(folder).rglob("*")
        )
        return not has_code and (Path(folder) / "run.json").is_file() and (_memory() / _digest(folder)).is_file()
    except OSError:
        return False


def remember_bundle(folder: str | Path, is_own: bool = True) -> None:
    """Remember a bundle that was created here, or, if it is not the user's own, that this folder came from elsewhere.

    Args:
        folder: the bundle's folder.
        is_own: False for a bundle that was installed.

    Raises:
        OutputError: that it was installed cannot be remembered.
    """
    try:
        for kind, holds in (("created", is_own), ("installed", not is_own)):
            if holds:
                _remember(_place(folder, kind))
            else:
                (_memory() / _place(folder, kind)).unlink(missing_ok=True)
    except OSError as error:
        if not is_own:
            fix = f"Name a folder that can be written in {STATE_VARIABLE}."
            raise OutputError(_memory(), "where bundles came from cannot be remembered", str(error), fix) from error


def is_own(folder: str | Path) -> bool:
    """Return True for a bundle that comes with medseg or lies in its checkout, was created here, or is a run of here.

    A bundle that was installed is not, wherever its folder is.
    """
    folder = Path(folder).resolve()
    try:
        if (_memory() / _place(folder, "installed")).exists():
            return False
        homes = [(home / "bundles").resolve() for home in search_path()[1:]]
        ships = folder.parent in homes and not folder.name.startswith(".")  # hidden: an install in progress
        return ships or (_memory() / _place(folder, "created")).is_file() or was_started_here(folder)
    except OSError:
        return False


def _remember(name: str) -> None:
    path = _memory() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _memory() -> Path:
    folder = os.environ.get(STATE_VARIABLE) or platformdirs.user_state_path("medseg", appauthor=False)
    return Path(folder) / "own"


def _place(folder: str | Path, kind: str) -> str:
    location = os.path.normcase(Path(folder).resolve())
    return hashlib.sha256(f"{kind} {location}".encode()).hexdigest()


def _digest(folder: str | Path) -> str:
    """Return the SHA-256 of all configs of a run, with their names.

    Raises:
        OSError: it has none, or one cannot be read.
    """
    root = Path(folder) / "configs"
    digest = hashlib.sha256((root / "train.json").read_bytes())
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()
