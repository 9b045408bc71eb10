"""The copy of a run brought here from its backup, where it goes on."""

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

from medseg.errors import OutputError, RunError
from medseg.remote import PARTIAL, open_filesystem, run_with_timeout
from medseg.runs.find import find_unfinished
from medseg.runs.record import FINISHED, LOCK, RECORD, RUNNING, read_record
from medseg.training.backup import ANSWERS, FIX

logger = logging.getLogger(__name__)

Found = tuple[str, dict[str, Any]]


def fetch(url: str, identity: str, parent: str | Path, timeout: float = ANSWERS) -> Path | None:
    """The unfinished run of an identity, from here or from its backup, whichever copy of it got further.

    A run that is only in the backup is copied to `parent` first, whole or not at all. Where the copy got further than
    the folder of that name here, which happens when it went on elsewhere, the folder here is set aside in `.older`;
    None where it finished there.

    Args:
        url: where the copies of runs are, see `medseg.training.Backup`.
        identity: see `medseg.training.run.identity`.
        parent: where the runs of the bundle lie here, `<runs>/<bundle>`.
        timeout: seconds that the place is given to answer.

    Raises:
        ConfigError: a place that cannot be.
        OutputError: it cannot be reached, does not answer in time, or the run cannot be written here.
        RunError: the backup has another run of the same name.
    """
    parent = Path(parent)
    _tidy(parent)
    here = find_unfinished(parent, identity)
    location, found = _asked(url, timeout, lambda location, path: _remote(location, f"{path}/{parent.name}", identity))
    if found is not None:
        source, record = found
        name = PurePosixPath(source).name
        same = read_record(parent / name)
        behind = same.get("state") != FINISHED and (not same or progress(same) < progress(record))
        if behind and (here is None or here.name == name or _rank(read_record(here)) < _rank(record)):
            return _copy_here(location, found, parent)
    if here is None:
        return None
    record = read_record(newest_copy(url, here, timeout=timeout))
    return here if record.get("identity") == identity and record.get("state") != FINISHED else None


def newest_copy(url: str, folder: str | Path, in_use: bool = False, timeout: float = ANSWERS) -> Path:
    """The folder of a run, with what its backup has of it where that got further.

    What was here is then set aside in `.older`.

    Args:
        url: where the copies of runs are, see `medseg.training.Backup`.
        folder: the run's folder.
        in_use: whether the folder cannot be set aside, for its own config is the one that runs.
        timeout: seconds that the place is given to answer.

    Raises:
        ConfigError: a place that cannot be.
        OutputError: it cannot be reached, does not answer in time, or the run cannot be written here.
        RunError: the backup has another run of the same name, or it got further and the folder is in use.
    """
    folder = Path(folder)
    record = read_record(folder)
    inside = f"{folder.parent.name}/{folder.name}"
    location, found = _asked(url, timeout, lambda location, path: _record_in(location, f"{path}/{inside}"))
    if found is None:
        return folder
    begun, there = record.get("started"), found[1].get("started")
    if begun and there and begun != there:
        rule, came = "must be a place without another run of that name", f"one that began {there}, this one {begun}"
        raise RunError(f"backup={url}", rule, came, "Give another place.")
    if progress(found[1]) <= progress(record):
        return folder
    if in_use:
        raise RunError(
            folder,
            "must have got as far as its backup",
            f"iteration {progress(record)} of {progress(found[1])}",
            "Move this folder away; the command that began the run, with the same backup, brings the copy here.",
        )
    return _copy_here(location, found, folder.parent)


def progress(record: dict[str, Any]) -> int:
    """How far a run got that can be gone on with: the iteration of its newest checkpoint, where the record says it."""
    return int(record.get("saved_iteration", record.get("iteration")) or 0)


def _asked(url: str, timeout: float, find: Callable[[Any, str], Found | None]) -> tuple[Any, Found | None]:
    """The file system of a URL and what is found there, or an error where it does not answer."""

    def work() -> tuple[Any, Found | None]:
        location, path = open_filesystem(url, f"backup={url}", FIX)
        location.invalidate_cache()
        return location, find(location, path)

    return run_with_timeout(timeout, work, f"backup={url}", FIX)


def _rank(record: dict[str, Any]) -> tuple[str, int]:
    return str(record.get("started", "")), progress(record)


def _tidy(parent: Path) -> None:
    """Remove what a process that was killed left half brought here; one that is at it holds the lock."""
    for partial in parent.glob(f".*{PARTIAL}"):
        with contextlib.suppress(OSError), filelock.FileLock(partial / LOCK, timeout=0):
            shutil.rmtree(partial, ignore_errors=True)


def _remote(location: Any, folder: str, identity: str) -> Found | None:
    """The latest run in a folder of the place that has this identity and did not finish, with its record."""
    if not location.exists(folder):
        return None
    runs = [_record_in(location, str(run).rstrip("/")) for run in location.ls(folder, detail=False)]
    found = [
        run
        for run in runs
        if run is not None and run[1].get("identity") == identity and run[1].get("state") != FINISHED
    ]
    return max(found, key=lambda run: (str(run[1].get("started", "")), run[0])) if found else None


def _record_in(location: Any, source: str) -> Found | None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):
        record = json.loads(location.cat_file(f"{source}/{RECORD}"))
        return (source, record) if isinstance(record, dict) else None
    return None


def _copy_here(location: Any, run: Found, parent: Path) -> Path:
    source, record = run
    logger.info("This run is in the backup: %s is copied here", location.unstrip_protocol(source))
    if record.get("state") == RUNNING:
        logger.warning(
            "Its record says that it is running on %s, last heard of %s. See that it is not.",
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
                raise OSError(f"{inside} came with {target.stat().st_size} of {info['size']} bytes")
        lock.release()
        (partial / LOCK).unlink(missing_ok=True)
        if final.exists():
            older = parent / ".older" / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
            older.parent.mkdir(exist_ok=True)
            final.rename(older)
            logger.warning("The backup had got further than this machine; what was here is now in %s", older)
        partial.rename(final)
    except Exception as error:
        raise OutputError(final, "must be brought here whole from the backup", str(error), "Run it again.") from error
    finally:
        lock.release()
        shutil.rmtree(partial, ignore_errors=True)
    return final
