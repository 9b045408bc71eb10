"""Means over cases with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medseg.metrics import StructureScores

Table = npt.NDArray[np.float64]
SAMPLES = 2000
LEVEL = 0.95
LOWER_IS_BETTER = ("asd_mm", "hd95_mm", "hausdorff")

COUNTS = ("annotated", "present", "missed", "false_positive", "invented_voxels")


class Interval(NamedTuple):
    """A mean with its bootstrap interval.

    Args:
        mean: over the values there are; NaN without any.
        low: lower end; NaN where there are fewer than two values.
        high: upper end.
        n: number of values.
    """

    mean: float
    low: float
    high: float
    n: int


def score_table(cases: Mapping[str, Sequence[StructureScores]], measure: str) -> Table:
    """Return one measure of all cases and structures, `(cases, structures)`; NaN where there is no value."""
    return np.array([[row.measures[measure] for row in rows] for rows in cases.values()], dtype=np.float64)


def draw_cases(cases: int, samples: int = SAMPLES, seed: int = 0) -> npt.NDArray[np.int64]:
    """Draw bootstrap samples: how often each case is in each of them, `(samples, cases)`."""
    return np.random.default_rng(seed).multinomial(cases, np.full(cases, 1 / cases), size=samples)


def resampled_means(values: Table, drawn: npt.NDArray[np.int64]) -> Table:
    """Return the mean of each column in each sample over the cases that have a value, `(samples, columns)`."""
    present = ~np.isnan(values)
    return _divide(drawn @ np.where(present, values, 0.0), drawn @ present)


def intervals(values: Table, drawn: npt.NDArray[np.int64]) -> tuple[list[Interval], Interval]:
    """Return the mean of every structure over cases, and the mean of these over structures, each with its interval.

    Whole cases are drawn with replacement, so that what the structures of one patient share stays together. The
    interval holds the central 95 % of the means (Efron's percentile bootstrap). With few cases it is too narrow.

    Args:
        values: `(cases, structures)`, NaN where there is no value.
        drawn: as `draw_cases` gives it.
    """
    present = ~np.isnan(values)
    counts = present.sum(axis=0)
    means = row_means(values.T)
    samples = resampled_means(values, drawn)
    structures = [
        Interval(float(mean), *_percentile_ends(samples[:, column], int(n)), int(n))
        for column, (mean, n) in enumerate(zip(means, counts, strict=True))
    ]
    measured = counts > 0
    overall = float(means[measured].mean()) if measured.any() else float("nan")
    cases = int(present.any(axis=1).sum())
    ends = _percentile_ends(row_means(samples[:, measured]), cases)
    return structures, Interval(overall, *ends, int(measured.sum()))


def row_means(values: Table) -> Table:
    """Return the mean of each row over its values; NaN for a row without any."""
    present = ~np.isnan(values)
    return _divide(np.where(present, values, 0.0).sum(axis=1), present.sum(axis=1))


def _divide(total: npt.NDArray[Any], count: npt.NDArray[Any]) -> Table:
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def _percentile_ends(samples: Table, values: int) -> tuple[float, float]:
    """Return the ends of the central 95 %; NaN where the samples come from fewer than two values."""
    samples = samples[~np.isnan(samples)]
    if values < 2 or not len(samples):
        return float("nan"), float("nan")
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)


def case_means(cases: Mapping[str, Sequence[StructureScores]], measures: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the mean of each measure over the structures that have a value, by case."""
    tables = {measure: row_means(score_table(cases, measure)) for measure in measures}
    return {case: {name: float(means[index]) for name, means in tables.items()} for index, case in enumerate(cases)}


def count_states(cases: Mapping[str, Sequence[StructureScores]]) -> dict[str, dict[str, int]]:
    """Count in how many cases a structure is `annotated`, `present` (in the truth), `missed`, a `false_positive`.

    `invented_voxels` are those of its false positives.
    """
    counts: dict[str, dict[str, int]] = {}
    for rows in cases.values():
        for row in rows:
            count = counts.setdefault(row.structure, dict.fromkeys(COUNTS, 0))
            count["annotated"] += row.state != "not annotated"
            count["present"] += row.truth_voxels > 0
            count["missed"] += row.state == "missed"
            count["false_positive"] += row.state == "false positive"
            count["invented_voxels"] += row.predicted_voxels * (row.state == "false positive")
    return counts
