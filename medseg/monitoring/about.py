"""What a tracker is told of a run beside its series: settings, versions, code and data; no places, no people."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.monitoring.payload import without_paths
from medseg.runs.record import read_record

_PLACES = {
    "backup",
    "bundle_root",
    "ckpt_path",
    "dataset_dir",
    "exclude",
    "imports",
    "initialize",
    "monitor",
    "output_dir",
    "run",
    "save_execute_config",
    "training",
    "_meta_",
}
_PATH = re.compile(r"^(?:~|[A-Za-z]:)?[/\\]|^\w+://")


def about(folder: str | Path) -> dict[str, Any]:
    """The effective config without what says where things lie; versions, git state, fingerprint, number of cases."""
    folder = Path(folder)
    record = read_record(folder)
    found = dict(_cleaned({key: value for key, value in _config(folder).items() if key not in _PLACES}))
    found |= {key: record[key] for key in ("bundle", "versions", "data") if record.get(key) is not None}
    git = record.get("git")
    if isinstance(git, Mapping):
        found["git"] = {key: git[key] for key in ("commit", "dirty") if key in git}
    cases = record.get("cases")
    if isinstance(cases, Mapping):
        found["cases"] = {side: len(names) for side, names in cases.items() if isinstance(names, list)}
    return found


def _config(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "configs" / "train.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _cleaned(value: Any) -> Any:
    """The same without any text that is a path, and without the paths in other texts."""
    if isinstance(value, Mapping):
        return {str(key): _cleaned(part) for key, part in value.items() if not _is_path(part)}
    if isinstance(value, list):
        return [_cleaned(part) for part in value if not _is_path(part)]
    return without_paths(value) if isinstance(value, str) else value


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and _PATH.match(value) is not None
