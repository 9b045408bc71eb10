"""From the scores of cases to what is said of the whole: means over the cases that count, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medseg.metrics import StructureScores

Table = npt.NDArray[np.float64]
SAMPLES, LEVEL = 2000, 0.95
LOWER_IS_BETTER = ("asd_mm", "hd95_mm")


class Interval(NamedTuple):
    """A mean with its bootstrap interval.

    Args:
        mean: over those that have a value; NaN where none has.
        low: lower end; NaN where there are fewer than two values.
        high: upper end.
        n: over how many values.
    """

    mean: float
    low: float
    high: float
    n: int


def table(cases: Mapping[str, Sequence[StructureScores]], measure: str) -> Table:
    """One measure of all cases and structures, `(cases, structures)`; NaN where there is no value."""
    return np.array([[row.measures[measure] for row in rows] for rows in cases.values()], dtype=np.float64)


def weights(cases: int, samples: int = SAMPLES, seed: int = 0) -> npt.NDArray[np.int64]:
    """How often each case is drawn in each bootstrap sample, `(samples, cases)`."""
    return np.random.default_rng(seed).multinomial(cases, np.full(cases, 1 / cases), size=samples)


def resampled_means(values: Table, drawn: npt.NDArray[np.int64]) -> Table:
    """The mean of each column in each sample over the cases that have a value, `(samples, columns)`."""
    known = ~np.isnan(values)
    total = drawn @ np.where(known, values, 0.0)
    count = drawn @ known
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def intervals(values: Table, drawn: npt.NDArray[np.int64]) -> tuple[list[Interval], Interval]:
    """The mean of every structure over cases, and the mean of these over structures, each with its interval.

    Whole cases are drawn with replacement, so that what structures of one patient share stays together; the interval
    holds the middle 95 % of the means (Efron's percentile bootstrap). With few cases it is too narrow.

    Args:
        values: `(cases, structures)`, NaN where there is no value.
        drawn: as `weights` gives it.
    """
    known = ~np.isnan(values)
    counts = known.sum(axis=0)
    means = np.divide(
        np.where(known, values, 0.0).sum(axis=0), counts, out=np.full(len(counts), np.nan), where=counts > 0
    )
    samples = resampled_means(values, drawn)
    structures = [
        Interval(float(mean), *_middle(samples[:, column], int(n)), int(n))
        for column, (mean, n) in enumerate(zip(means, counts, strict=True))
    ]
    held = counts > 0
    overall = float(means[held].mean()) if held.any() else float("nan")
    rows = samples[:, held]
    some = ~np.isnan(rows)
    filled = some.sum(axis=1)
    of_all = np.divide(np.where(some, rows, 0.0).sum(axis=1), filled, out=np.full(len(rows), np.nan), where=filled > 0)
    cases = int(known.any(axis=1).sum())
    return structures, Interval(overall, *_middle(of_all, cases), int(held.sum()))


def _middle(samples: npt.NDArray[np.float64], values: int) -> tuple[float, float]:
    """The ends of the middle 95 %; NaN where fewer than two values were drawn from."""
    samples = samples[~np.isnan(samples)]
    if values < 2 or not len(samples):
        return float("nan"), float("nan")
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)


def case_means(cases: Mapping[str, Sequence[StructureScores]], measures: Sequence[str]) -> dict[str, dict[str, float]]:
    """The mean of each measure over the structures that have a value, by case."""
    found = {}
    for case, rows in cases.items():
        values = {measure: [row.measures[measure] for row in rows] for measure in measures}
        known = {measure: [value for value in ones if not np.isnan(value)] for measure, ones in values.items()}
        found[case] = {measure: float(np.mean(ones)) if ones else float("nan") for measure, ones in known.items()}
    return found


def states(cases: Mapping[str, Sequence[StructureScores]]) -> dict[str, dict[str, int]]:
    """In how many cases a structure is `annotated`, `present` (in the truth), `missed`, a `false_positive`."""
    found: dict[str, dict[str, int]] = {}
    for rows in cases.values():
        for row in rows:
            one = found.setdefault(
                row.structure, dict.fromkeys(("annotated", "present", "missed", "false_positive"), 0)
            )
            one["annotated"] += row.state != "not annotated"
            one["present"] += row.truth_voxels > 0
            one["missed"] += row.state == "missed"
            one["false_positive"] += row.state == "false positive"
    return found


def plain(value: Any) -> Any:
    """The same for JSON: NaN and infinity as None, in dictionaries and lists, too."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value
