"""What must hold of a bundle that is packed or installed: it is whole and agrees with itself."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

from medseg.bundle.verify import verify_bundle
from medseg.errors import BundleError, MedsegError
from medseg.findings import Finding

logger = logging.getLogger(__name__)
_SHOWN = 5


def require_clean(root: Path, trust: bool, name: str, meant: Collection[str] = ()) -> None:
    """See that a bundle is whole and consistent; warnings are logged.

    Args:
        root: its folder.
        trust: whether what it would run is trusted.
        name: what errors call it.
        meant: codes of warnings that are not said.

    Raises:
        BundleError: it is not.
    """
    found = verify_bundle(root, trust)
    for one in found:
        if one.severity == "warning" and one.code not in meant:
            logger.warning("%s", one)
    wrong = [one for one in found if one.severity == "error"]
    if wrong:
        refuse(name, "must be whole and consistent", wrong, "medseg bundle verify lists all of it.")


def refuse(name: str, rule: str, found: Sequence[Finding], fix: str) -> None:
    """Raise what was found as one error.

    Raises:
        BundleError: always.
    """
    printable = "; ".join(f"{one.code} in {one.location}: {one.message}" for one in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise BundleError(name, rule, f"{len(found)} fault{'s' * (len(found) > 1)}: {printable}{more}", fix)


def renamed(error: MedsegError, folder: Path, name: str) -> MedsegError:
    """An error about a folder that is gone by the time it is read, as one about what the user knows.

    Args:
        error: it.
        folder: the folder for a time.
        name: what it is called instead.
    """
    paths = dict.fromkeys((str(folder), str(folder.resolve())))

    def said(text: str) -> str:
        for path in paths:
            text = text.replace(path, name)
        return text.replace(folder.name, name) if folder.name.endswith(".partial") else text

    parts = [said(part) for part in (error.thing, error.problem, error.came, error.fix)]
    kind: Any = type(error)
    try:
        return cast("MedsegError", kind(*parts))
    except TypeError:  # one with arguments of its own
        return BundleError(*parts)
