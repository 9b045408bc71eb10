"""Import optional packages; a missing one is named together with the extra that brings it."""

from __future__ import annotations

import importlib
from types import ModuleType

from medseg.errors import MissingExtraError


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
        fix = f"Install it with: pip install 'medseg[{extra}]'"
        raise MissingExtraError(module, "this optional package is not installed", "", fix) from error
