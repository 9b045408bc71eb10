"""What must hold before a bundle is packed or installed: nothing unknown runs, and nothing is wrong with it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from medseg.errors import ConfigError
from medseg.findings import Finding

logger = logging.getLogger(__name__)
_SHOWN = 5


def require_trust(path: Path, trust: bool) -> None:
    """See that a bundle would run only what is known to be safe; nothing of it is executed or imported.

    Args:
        path: a folder or a zip.
        trust: go on all the same.

    Raises:
        ConfigError: it would run something else, and is not trusted.
    """
    from medseg.inspection import inspect_bundle

    found = [one for one in inspect_bundle(path).findings if one.severity == "error"]
    if found and not trust:
        refuse(path.name, "must run only what is known to be safe", found, "Read what it would run, then give --trust.")


def require_clean(root: Path, trust: bool, name: str) -> None:
    """See that a bundle is whole and consistent; warnings are logged.

    Args:
        root: its folder.
        trust: whether what it would run is trusted.
        name: what errors call it.

    Raises:
        ConfigError: it is not.
    """
    from medseg.bundle.verification import verify_bundle

    found = verify_bundle(root, trust)
    for one in found:
        if one.severity == "warning":
            logger.warning("%s", one)
    wrong = [one for one in found if one.severity == "error"]
    if wrong:
        refuse(name, "must be whole and consistent", wrong, "medseg bundle verify lists all of it.")


def refuse(name: str, rule: str, found: Sequence[Finding], remedy: str) -> None:
    """Raise what was found as one error.

    Raises:
        ConfigError: always.
    """
    shown = "; ".join(f"{one.code} in {one.place}: {one.message}" for one in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise ConfigError(name, rule, f"{len(found)} fault{'s' * (len(found) > 1)}: {shown}{more}", remedy)
