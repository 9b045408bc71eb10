"""What sets runs apart: settings, Dice by structure, speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from medseg.config.diff import differences
from medseg.runs.runs import Summary, read_json, summarize
from medseg.places import find_recipe
from medseg.records import read_rows

# What says where things lie, or was put there by MONAI, and not what is computed.
_PLACES = {"bundle_root", "output_dir", "save_execute_config", "_meta_", "resume"}


def config_of(folder: Path) -> dict[str, Any]:
    """The config that a run trains with; empty where there is none."""
    return read_json(folder / "configs" / "train.json")


def unlike_recipe(folder: Path, bundle: str | None) -> dict[str, list[Any]]:
    """The settings in which a run differs from its bundle's recipe: `[recipe, run]`; empty where that is not known."""
    recipe = find_recipe(bundle) if bundle else None
    return differences(read_json(recipe), config_of(folder), ignore=_PLACES) if recipe is not None else {}


def best_validation(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The validation with the best mean Dice, the first of equals."""
    found = [row for row in rows if row.get("kind") == "validation" and row.get("mean_dice") is not None]
    return max(found, key=lambda row: float(row["mean_dice"]), default=None)


def speed(rows: Sequence[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """Samples a second and seconds an epoch, each the median over the epochs that there were."""
    epochs = [row for row in rows if row.get("kind") == "epoch"]
    values = [
        [float(row[key]) for row in epochs if row.get(key) is not None]
        for key in ("samples_per_second", "train_seconds")
    ]
    pace, seconds = (median(one) if one else None for one in values)
    return pace, seconds


def compare(folders: Sequence[Path]) -> dict[str, Any]:
    """Runs side by side.

    Returns:
        `runs` (a summary each), `settings` (what differs, a list of values each), `dice` (by structure, of the
        validation with the best mean; None where a structure was absent), `samples_per_second` and `epoch_seconds`.
    """
    summaries: list[Summary] = [summarize(folder) for folder in folders]
    rows = [[row for _, row in read_rows(folder)] for folder in folders]
    dice = [dict((best_validation(one) or {}).get("dice") or {}) for one in rows]
    names = list(dict.fromkeys(name for one in dice for name in one))
    speeds = [speed(one) for one in rows]
    return {
        "runs": summaries,
        "settings": differences(*map(config_of, folders), ignore=_PLACES),
        "dice": {name: [one.get(name) for one in dice] for name in names},
        "samples_per_second": [one[0] for one in speeds],
        "epoch_seconds": [one[1] for one in speeds],
    }
