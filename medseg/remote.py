"""Open a place that fsspec reaches (a folder, s3, ssh, the Hugging Face Hub) and give up on one that stays silent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from medseg.errors import ConfigError, MedsegError, OutputError, first_line
from medseg.optional import require

T = TypeVar("T")
PARTIAL = ".partial"  # ends the name of a file that is still being written
# The package that brings a protocol, where fsspec's own hint names none.
_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "hf": "'medseg[share]'",
}
_FIX = "Check its spelling, the network and your login."


def open_filesystem(url: str, thing: str = "", fix: str = _FIX) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it without a slash at its end.

    Args:
        url: a folder, or a URL that fsspec knows.
        thing: what errors call it, such as `backup=s3://...`; the URL by default.
        fix: what errors of an unreachable place advise.

    Raises:
        ConfigError: an unknown protocol, or one whose package is not installed; names the package.
        OutputError: the place cannot be reached.
        MissingExtraError: fsspec is not installed.
    """
    fsspec = require("fsspec", extra="share")
    registry = require("fsspec.registry", extra="share")
    thing = thing or url
    text = str(Path(url).expanduser()) if url.startswith("~") else url
    protocol = fsspec.utils.get_protocol(text)
    try:
        registry.get_filesystem_class(protocol)
    except ValueError as error:
        examples = sorted({"file", "memory", "s3", "gs", "sftp", "ssh", "smb"} & set(registry.known_implementations))
        problem = f"fsspec does not know the protocol {protocol}://"
        raise ConfigError(thing, problem, "", f"Use a folder, or for example {', '.join(examples)}.") from error
    except ImportError as error:
        package = _PACKAGES.get(protocol, error.name or "the package of that protocol")
        problem = f"{protocol}:// needs a package that is not installed"
        raise ConfigError(thing, problem, "", f"Install it with: pip install {package}") from error
    try:
        filesystem, path = fsspec.core.url_to_fs(text, skip_instance_cache=True)  # no stale listings
    except Exception as error:
        raise unreachable(thing, error, fix) from error
    return filesystem, path.rstrip("/")


def run_with_timeout(seconds: float, work: Callable[[], T], thing: str, fix: str = _FIX) -> T:
    """Return what `work` returns, run in its own thread: a place that never answers must not hang the caller.

    Args:
        seconds: how long to wait.
        work: talks to the place.
        thing: what errors call the place.
        fix: what errors advise.

    Raises:
        MedsegError: raised by `work`.
        OutputError: it failed, or did not end in time.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="medseg-remote", daemon=True)
    thread.start()
    thread.join(seconds)
    if results:
        return results[0]
    error = errors[0] if errors else TimeoutError(f"no answer in {seconds:g} s")
    if isinstance(error, MedsegError):
        raise error
    raise unreachable(thing, error, fix) from error


def unreachable(thing: str, error: BaseException, fix: str = _FIX) -> OutputError:
    """Return the error of a place that cannot be reached or written."""
    return OutputError(thing, "the place cannot be reached or written", first_line(error), fix)
