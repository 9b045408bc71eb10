"""Bring the copy of a run back from its backup, to resume it here."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import filelock

from medseg.atomic import move
from medseg.errors import OutputError, RunError
from medseg.remote import PARTIAL, open_filesystem, run_with_timeout
from medseg.runs.find import find_unfinished
from medseg.runs.record import FINISHED, LOCK, RECORD, RUNNING, read_record
from medseg.training.backup import ANSWERS, FIX

logger = logging.getLogger(__name__)

RemoteRun = tuple[str, dict[str, Any]]  # its path in the file system, and its record


def fetch(url: str, identity: str, parent: str | Path, timeout: float = ANSWERS) -> Path | None:
    """Return the unfinished run of an identity, from here or from its backup, whichever copy got further.

    A run that is only in the backup is copied to `parent` first, all of it or nothing. Where the copy got further than
    the folder of that name here, because it was resumed elsewhere, the folder here is moved to `.older`; None where it
    finished there.

    Args:
        url: where the copies of runs are, see `medseg.training.Backup`.
        identity: see `medseg.training.run.identity`.
        parent: where the runs of the bundle are here, `<runs>/<bundle>`.
        timeout: seconds in which the place must answer.

    Raises:
        ConfigError: the URL is not valid.
        OutputError: it cannot be reached, does not answer in time, or the run cannot be written here.
        RunError: the backup has another run of the same name.
    """
    parent = Path(parent)
    _tidy(parent)
    here = find_unfinished(parent, identity)
    location, copy = _ask(url, timeout, lambda location, path: _remote(location, f"{path}/{parent.name}", identity))
    if copy is not None:
        source, record = copy
        name = PurePosixPath(source).name
        same = read_record(parent / name)
        behind = same.get("state") != FINISHED and (not same or progress(same) < progress(record))
        if behind and (here is None or here.name == name or _rank(read_record(here)) < _rank(record)):
            return _copy_here(location, copy, parent)
    if here is None:
        return None
    record = read_record(newest_copy(url, here, timeout=timeout))
    return here if record.get("identity") == identity and record.get("state") != FINISHED else None


def newest_copy(url: str, folder: str | Path, in_use: bool = False, timeout: float = ANSWERS) -> Path:
    """Return the folder of a run, replaced by its backup where that got further; the old folder moves to `.older`.

    Args:
        url: where the copies of runs are, see `medseg.training.Backup`.
        folder: the run's folder.
        in_use: whether the folder cannot be moved, because its own config is the one that runs.
        timeout: seconds in which the place must answer.

    Raises:
        ConfigError: the URL is not valid.
        OutputError: it cannot be reached, does not answer in time, or the run cannot be written here.
        RunError: the backup has another run of the same name, or it got further and the folder is in use.
    """
    folder = Path(folder)
    record = read_record(folder)
    inside = f"{folder.parent.name}/{folder.name}"
    location, copy = _ask(url, timeout, lambda location, path: _record_in(location, f"{path}/{inside}"))
    if copy is None:
        return folder
    begun, there = record.get("started"), copy[1].get("started")
    if begun and there and begun != there:
        problem = f"it holds another run of this name, begun {there} (this one {begun})"
        raise RunError(f"backup={url}", problem, "", "Give another place.")
    if progress(copy[1]) <= progress(record):
        return folder
    if in_use:
        raise RunError(
            folder,
            f"it is at iteration {progress(record)}, and its backup at {progress(copy[1])}",
            "",
            "Move this folder away: the command that began the run, with the same backup, then brings the copy here.",
        )
    return _copy_here(location, copy, folder.parent)


def progress(record: dict[str, Any]) -> int:
    """Return how far a run got that can be resumed: the iteration of its newest checkpoint, if recorded."""
    return int(record.get("saved_iteration", record.get("iteration")) or 0)


def _ask(url: str, timeout: float, find: Callable[[Any, str], RemoteRun | None]) -> tuple[Any, RemoteRun | None]:
    """Return the file system of a URL and what `find` finds there."""

    def work() -> tuple[Any, RemoteRun | None]:
        location, path = open_filesystem(url, f"backup={url}", FIX)
        location.invalidate_cache()
        return location, find(location, path)

    return run_with_timeout(timeout, work, f"backup={url}", FIX)


def _rank(record: dict[str, Any]) -> tuple[str, int]:
    return str(record.get("started", "")), progress(record)


def _tidy(parent: Path) -> None:
    """Remove partial copies of a process that was killed; one that still copies holds the lock."""
    for partial in parent.glob(f".*{PARTIAL}"):
        with contextlib.suppress(OSError), filelock.FileLock(partial / LOCK, timeout=0):
            shutil.rmtree(partial, ignore_errors=True)


def _remote(location: Any, folder: str, identity: str) -> RemoteRun | None:
    """Return the latest remote run in a folder that has this identity and did not finish, with its record."""
    if not location.exists(folder):
        return None
    runs = [_record_in(location, str(run).rstrip("/")) for run in location.ls(folder, detail=False)]
    unfinished = [
        run
        for run in runs
        if run is not None and run[1].get("identity") == identity and run[1].get("state") != FINISHED
    ]
    return max(unfinished, key=lambda run: (str(run[1].get("started", "")), run[0])) if unfinished else None


def _record_in(location: Any, source: str) -> RemoteRun | None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):
        record = json.loads(location.cat_file(f"{source}/{RECORD}"))
        return (source, record) if isinstance(record, dict) else None
    return None


def _copy_here(location: Any, run: RemoteRun, parent: Path) -> Path:
    source, record = run
    logger.info("This run is in the backup: %s is copied here", location.unstrip_protocol(source))
    if record.get("state") == RUNNING:
        logger.warning(
            "Its record says that it is running on %s, last heard of %s. Make sure that it is not.",
            record.get("host", "another machine"),
            record.get("updated", "at an unknown time"),
        )
    name = PurePosixPath(source).name
    partial, final = parent / f".{name}.{uuid.uuid4().hex[:8]}{PARTIAL}", parent / name
    lock = filelock.FileLock(partial / LOCK)
    try:
        partial.mkdir(parents=True)
        lock.acquire()
        for path, info in location.find(source, detail=True).items():
            inside = PurePosixPath(path).relative_to(PurePosixPath(source))
            if path.endswith(PARTIAL) or inside.name == LOCK:
                continue
            target = partial / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            location.get_file(path, str(target))
            if target.stat().st_size != info["size"]:
                raise OSError(f"{inside} arrived with {target.stat().st_size} of {info['size']} bytes")
        lock.release()
        (partial / LOCK).unlink(missing_ok=True)
        if final.exists():
            older = parent / ".older" / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
            older.parent.mkdir(exist_ok=True)
            move(final, older)
            logger.warning("The backup got further than this machine; the folder that was here is now %s", older)
        move(partial, final)
    except Exception as error:
        raise OutputError(
            final, f"it cannot be copied from the backup: {error}", "", "Run the command again."
        ) from error
    finally:
        lock.release()
        shutil.rmtree(partial, ignore_errors=True)
    return final
