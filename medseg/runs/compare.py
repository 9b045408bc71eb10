"""Compare runs: settings, Dice by structure, speed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from medseg.config.diff import differences
from medseg.runs.metrics_log import Row
from medseg.runs.record import read_json
from medseg.runs.run import Run
from medseg.search_path import find_recipe

# Keys that say where files lie, or that MONAI adds; they do not say what is computed.
_LOCATIONS = {"bundle_root", "output_dir", "save_execute_config", "_meta_", "resume"}


def unlike_recipe(run: Run) -> dict[str, list[Any]]:
    """Return the settings in which a run differs from its bundle's recipe, `[recipe, run]`; empty without a recipe."""
    recipe = find_recipe(run.bundle) if run.bundle else None
    return differences(read_json(recipe), run.config, ignore=_LOCATIONS) if recipe is not None else {}


def speed(rows: Sequence[Row]) -> tuple[float | None, float | None]:
    """Return samples a second and seconds an epoch, each the median over the epochs.

    Args:
        rows: the rows of epochs.
    """
    medians: list[float | None] = []
    for key in ("samples_per_second", "train_seconds"):
        values = [float(row[key]) for row in rows if row.get(key) is not None]
        medians.append(median(values) if values else None)
    return medians[0], medians[1]


def compare(folders: Sequence[Path]) -> dict[str, Any]:
    """Compare runs side by side.

    Returns:
        `runs` (a `Run` each), `settings` (those that differ, a list of values each), `dice` (by structure, of the best
        validation; None where a structure was absent), `samples_per_second` and `epoch_seconds`.
    """
    runs = [Run(folder) for folder in folders]
    scores = [run.best.by_structure if run.best else {} for run in runs]
    names = list(dict.fromkeys(name for by_structure in scores for name in by_structure))
    speeds = [speed(run.rows_of("epoch")) for run in runs]
    return {
        "runs": runs,
        "settings": differences(*(run.config for run in runs), ignore=_LOCATIONS),
        "dice": {name: [by_structure.get(name) for by_structure in scores] for name in names},
        "samples_per_second": [samples for samples, _ in speeds],
        "epoch_seconds": [seconds for _, seconds in speeds],
    }
