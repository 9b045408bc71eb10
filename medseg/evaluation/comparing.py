"""Two evaluations of the same cases: paired differences by structure, tested, and corrected for their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from medseg.errors import DataError, MedsegError, did_you_mean
from medseg.evaluation.summary import LOWER_IS_BETTER, SAMPLES, intervals, plain, weights

CORRECTIONS = ("holm", "bh", "none")
_EXACT = 12  # up to so many differences all signs are tried


def compare(
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    measures: Sequence[str] | None = None,
    correction: str = "holm",
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Paired differences, `other` less `one`, of every structure over the cases in which both have a value.

    Args:
        one: an evaluation as `results.load` gives it.
        other: another, of the same truth.
        measures: which; all that both have by default.
        correction: for the number of structures, within each measure: `holm` (family-wise error), `bh` (false
            discovery rate, Benjamini and Hochberg), `none`.
        samples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        `cases`, and for each measure a list with one entry a structure: `n` pairs, `only_one` and `only_other` (cases
        in which only one side has a value, which are no pairs), mean of both sides over the pairs, `difference` with
        `low` and `high`, `p`, `p_corrected`, `better` (`one`, `other` or None where 5 % is not reached). `overall` has
        the same of the cases' own means over the structures that make a pair, and `smallest_p` the corrected p beyond
        which no structure can come with so many cases.

    Raises:
        DataError: no case in common, or another truth; MedsegError: a measure or correction that is none.
    """
    if correction not in CORRECTIONS:
        fix = did_you_mean(correction, CORRECTIONS)
        raise MedsegError(f"correction '{correction}'", f"must be one of {', '.join(CORRECTIONS)}", "neither", fix)
    shared = [measure for measure in one["measures"] if measure in other["measures"]]
    for measure in measures or ():
        if measure not in shared:
            fix = did_you_mean(measure, shared, f"Both have {', '.join(shared)}.")
            raise MedsegError(f"measure '{measure}'", "must be one that both evaluations have", "none", fix)
    sides = [_by_case(side) for side in (one, other)]
    cases = [case for case in sorted(sides[0]) if case in sides[1]]
    if not cases:
        raise DataError("evaluations", "must have a case in common to be compared", "none")
    names = _same_truth(sides, cases)
    found, overall = {}, {}
    drawn = weights(len(cases), samples, seed)
    for measure in measures or shared:
        tables = [
            np.array([[_value(side[case].get(name), measure) for name in names] for case in cases]) for side in sides
        ]
        found[measure] = _of_measure(names, tables, measure, correction, drawn)
        overall[measure] = _of_cases(tables[1] - tables[0], drawn)
    return dict(
        plain(
            {
                "one": one["prediction"],
                "other": other["prediction"],
                "cases": cases,
                "only_one": sorted(set(sides[0]) - set(cases)),
                "only_other": sorted(set(sides[1]) - set(cases)),
                "correction": correction,
                "smallest_p": float(corrected_p(np.full(len(names), min(1.0, 2.0 ** (1 - len(cases)))), correction)[0]),
                "overall": overall,
                "measures": found,
            }
        )
    )


def _by_case(evaluation: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    return {case["case"]: {row["structure"]: row for row in case["structures"]} for case in evaluation["cases"]}


def _same_truth(sides: Sequence[Mapping[str, Mapping[str, Mapping[str, Any]]]], cases: Sequence[str]) -> list[str]:
    """The structures that both have, in order; sees that the truth was the same."""
    names: dict[str, None] = {}
    for case in cases:
        for name, row in sides[0][case].items():
            contralateral = sides[1][case].get(name)
            if contralateral is None:
                continue
            names[name] = None
            if row["truth_voxels"] != contralateral["truth_voxels"]:
                raise DataError(
                    f"evaluations, case {case}, {name}",
                    "must have been held against the same truth",
                    f"{row['truth_voxels']} and {contralateral['truth_voxels']} voxels in it",
                    "Evaluate both against one truth, with the same structures.",
                )
    if not names:
        raise DataError("evaluations", "must have a structure in common to be compared", "none")
    return list(names)


def _value(row: Mapping[str, Any] | None, measure: str) -> float:
    value = None if row is None else row[measure]
    return float("nan") if value is None else float(value)


def _of_cases(difference: npt.NDArray[np.float64], drawn: npt.NDArray[np.int64]) -> dict[str, Any]:
    """The difference of each case over its structures, and what becomes of it over the cases."""
    known = ~np.isnan(difference)
    counts = known.sum(axis=1)
    total = np.where(known, difference, 0.0).sum(axis=1)
    means = np.divide(total, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    (change,), _ = intervals(means[:, None], drawn)
    p = wilcoxon(means[counts > 0])
    return {"n": change.n, "difference": change.mean, "low": change.low, "high": change.high, "p": p}


def _of_measure(
    names: Sequence[str],
    tables: Sequence[npt.NDArray[np.float64]],
    measure: str,
    correction: str,
    drawn: npt.NDArray[np.int64],
) -> list[dict[str, Any]]:
    difference = tables[1] - tables[0]
    pairs = ~np.isnan(difference)
    lone = [(~np.isnan(mine) & ~pairs).sum(axis=0) for mine in tables]
    of_all, _ = intervals(difference, drawn)
    p = np.array([wilcoxon(difference[pairs[:, column], column]) for column in range(len(names))])
    corrected = corrected_p(p, correction)
    rows = []
    for column, name in enumerate(names):
        held = pairs[:, column]
        change = of_all[column]
        gain = -change.mean if measure in LOWER_IS_BETTER else change.mean
        sure = bool(corrected[column] < 0.05) and gain != 0 and measure != "relative_volume_error"
        rows.append(
            {
                "structure": name,
                "n": int(held.sum()),
                "only_one": int(lone[0][column]),
                "only_other": int(lone[1][column]),
                "mean_one": float(tables[0][held, column].mean()) if held.any() else float("nan"),
                "mean_other": float(tables[1][held, column].mean()) if held.any() else float("nan"),
                "difference": change.mean,
                "low": change.low,
                "high": change.high,
                "p": float(p[column]),
                "p_corrected": float(corrected[column]),
                "better": ("other" if gain > 0 else "one") if sure else None,
            }
        )
    return sorted(rows, key=lambda row: (np.isnan(row["p_corrected"]), row["p_corrected"], -abs(row["difference"])))


def wilcoxon(differences: npt.NDArray[np.float64]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that differences lie about 0; NaN without any, 1 where all are 0.

    Differences of 0 are left out (Wilcoxon's own way). Up to 12 others all signs are tried, so that p is exact with
    ties, too; beyond, it is SciPy's.

    Wilcoxon, F. (1945). Individual comparisons by ranking methods. Biometrics Bulletin 1.

    >>> wilcoxon(np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    0.0625
    """
    if not len(differences):
        return float("nan")
    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    if len(moved) > _EXACT:
        return float(stats.wilcoxon(moved).pvalue)
    ranks = stats.rankdata(np.abs(moved))
    signs = (np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1
    middle = ranks.sum() / 2
    away = np.abs(signs @ ranks - middle)
    return float(np.mean(away >= abs(ranks[moved > 0].sum() - middle) - 1e-9))


def corrected_p(p: npt.NDArray[np.float64], correction: str) -> npt.NDArray[np.float64]:
    """Correct p values for their number; NaN are not counted and stay NaN.

    Holm, S. (1979), Scand J Stat 6; Benjamini, Y. and Hochberg, Y. (1995), J R Stat Soc B 57.

    >>> corrected_p(np.array([0.01, 0.04, np.nan, 0.03]), "holm").tolist()
    [0.03, 0.06, nan, 0.06]
    """
    corrected = p.copy()
    known = np.flatnonzero(~np.isnan(p))
    if correction == "bh" and len(known):
        corrected[known] = stats.false_discovery_control(p[known])
    elif correction == "holm":
        order = known[np.argsort(p[known], kind="stable")]
        stepped = p[order] * np.arange(len(order), 0, -1)
        corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0) if len(order) else stepped
    return corrected
