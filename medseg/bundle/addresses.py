"""Drop what a trusted bundle from elsewhere would send to others in the user's name: trackers, servers, backups."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.bundle.bundle import Bundle
from medseg.config.merge import merge, read_config
from medseg.config.paths import walk
from medseg.config.references import key_path

logger = logging.getLogger(__name__)

# Keys by which a bundle from elsewhere could send things to others, or speak in the user's name.
_ADDRESSES = ("backup", "base_url", "entity", "notes", "project", "tags")
_DEFAULT_BACKEND = "$medseg.monitoring.default_backend()"


def without_addresses(bundle: Bundle, files: Sequence[Path], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides that drop what a bundle from elsewhere would send or tell to others; a line says what it was.

    Args:
        bundle: the bundle.
        files: its config and the overlays; what the user's own files set is kept.
        overrides: what the user gives on the command line.
    """
    if bundle.is_own:
        return {}
    inside = [file for file in files if file.resolve().is_relative_to(bundle.root)]
    outside = [*map(key_path, overrides)]
    outside += [key_path(key) for file in files if file not in inside for key in read_config(file)]
    dropped: dict[str, Any] = {}
    for path, value in walk(merge(inside, {}), into_lists=False):
        holder, _, key = path.rpartition("#")
        is_address = key in _ADDRESSES or (holder == "monitor" and key in ("backend", "mode", "name"))
        if path == "monitor" and not isinstance(value, Mapping | None):
            dropped[path] = {}
        elif is_address and path not in outside and not _is_neutral(value):
            dropped[path] = _DEFAULT_BACKEND if key == "backend" else "auto" if key == "mode" else None
    (bundle.root / "monitor" / "settings.json").unlink(missing_ok=True)  # of the tracker of who began it
    if dropped:
        keys = ", ".join(dropped)
        logger.warning("%s came from elsewhere: its %s do not count. Give them yourself, KEY=VALUE", bundle.root, keys)
    return dropped


def _is_neutral(value: Any) -> bool:
    """Return True for an address that is none, is the user's default, or stands elsewhere and is dropped there."""
    return value in (None, [], "auto", _DEFAULT_BACKEND) or (isinstance(value, str) and value.startswith("@"))
