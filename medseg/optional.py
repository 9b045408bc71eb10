"""Import optional packages; a missing one is named together with the extra that brings it."""

from __future__ import annotations

import importlib
import os
import stat
from pathlib import Path
from types import ModuleType

import platformdirs

from medseg.errors import MissingExtraError, quoted


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module`, which belongs to the optional extra `extra`.

    Raises:
        MissingExtraError: it is not installed; the message holds the command that installs it.

    Example:
        >>> require("json", extra="nothing").__name__
        'json'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        fix = f"Install it with: pip install {quoted(f'medseg[{extra}]')}"
        raise MissingExtraError(module, "this optional package is not installed", "", fix) from error


def require_numba() -> ModuleType:
    """Import numba, whose compiled functions are cached in a private folder of the user.

    numba unpickles what it finds in its cache, and takes the cache's folder from `.numba_config.yaml` in the working
    directory, which may be a stranger's bundle or a folder of scans. An absolute NUMBA_CACHE_DIR of the environment
    stays. Where no private folder can be had, the cache lies beside medseg's own code.

    Raises:
        MissingExtraError: numba is not installed.
    """
    environment = os.environ.get("NUMBA_CACHE_DIR", "")
    folder = environment if Path(environment).is_absolute() else _private_folder("numba")
    # The environment comes before that file, which is read at the import and again at each compilation.
    os.environ["NUMBA_CACHE_DIR"] = folder
    os.environ["NUMBA_CACHE_LOCATOR_CLASSES"] = ""
    numba = require("numba", extra="fast")
    numba.config.CACHE_DIR, numba.config.CACHE_LOCATOR_CLASSES = folder, ""  # where numba was imported before
    return numba


def _private_folder(name: str) -> str:
    """Return a folder of the user's cache that only the user can write to; empty where there is none."""
    folder = platformdirs.user_cache_path("medseg", appauthor=False) / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            return ""
    except OSError:
        return ""
    return str(folder)
