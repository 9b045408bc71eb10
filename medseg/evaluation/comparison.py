"""Two evaluations of the same cases: paired differences by structure, tested, corrected for multiple testing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from medseg.errors import DataError, MedsegError, did_you_mean
from medseg.evaluation.bootstrap import LOWER_IS_BETTER, SAMPLES, draw_cases, intervals, row_means
from medseg.evaluation.results import json_safe

CORRECTIONS = ("holm", "bh", "none")
_EXACT = 12  # up to so many differences, all combinations of signs are tried


def compare_evaluations(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    measures: Sequence[str] | None = None,
    correction: str = "holm",
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two evaluations: differences, `second` less `first`, of every structure over the cases both have.

    Args:
        first: an evaluation as `load` or `Evaluation.to_dict` gives it.
        second: another, against the same truth.
        measures: which; by default all that both have.
        correction: for the number of structures, within each measure: `holm` (family-wise error), `bh` (false
            discovery rate, Benjamini and Hochberg), `none`.
        samples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        `cases`, and for each measure a list with one row a structure: `n` pairs, `only_first` and `only_second`
        (cases in which only that evaluation has a value, which are no pairs), mean of both over the pairs,
        `difference` with `low` and `high`, `p`, `p_corrected`, `better` (`first`, `second`, or None where 5 % is not
        reached). `overall` has the same of the cases' own means over the structures that make a pair, and
        `smallest_p` the smallest corrected p that any structure can reach with so many cases.

    Raises:
        DataError: no case in common, or another truth; MedsegError: an unknown measure or correction.
    """
    if correction not in CORRECTIONS:
        fix = did_you_mean(correction, CORRECTIONS)
        raise MedsegError("correction", f"it must be {', '.join(CORRECTIONS[:-1])} or none", f"got '{correction}'", fix)
    shared = [measure for measure in first["measures"] if measure in second["measures"]]
    for measure in measures or ():
        if measure not in shared:
            fix = did_you_mean(measure, shared, f"Both have {', '.join(shared)}.")
            raise MedsegError(f"measure '{measure}'", "the two evaluations do not both have it", fix=fix)
    sides = [_by_case(evaluation) for evaluation in (first, second)]
    cases = [case for case in sorted(sides[0]) if case in sides[1]]
    if not cases:
        raise DataError("evaluations", "they have no case in common", fix="Evaluate both on the same cases.")
    names = _common_structures(sides, cases)
    results, overall = {}, {}
    drawn = draw_cases(len(cases), samples, seed)
    for measure in measures or shared:
        tables = [
            np.array([[_value(side[case].get(name), measure) for name in names] for case in cases]) for side in sides
        ]
        results[measure] = _compare_structures(names, tables, measure, correction, drawn)
        overall[measure] = _compare_cases(tables[1] - tables[0], drawn)
    smallest = corrected_p(np.full(len(names), min(1.0, 2.0 ** (1 - len(cases)))), correction)[0]
    content: dict[str, Any] = json_safe(
        {
            "first": first["prediction"],
            "second": second["prediction"],
            "cases": cases,
            "only_first": sorted(set(sides[0]) - set(cases)),
            "only_second": sorted(set(sides[1]) - set(cases)),
            "correction": correction,
            "smallest_p": float(smallest),
            "overall": overall,
            "measures": results,
        }
    )
    return content


def _by_case(evaluation: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    return {case["case"]: {row["structure"]: row for row in case["structures"]} for case in evaluation["cases"]}


def _common_structures(
    sides: Sequence[Mapping[str, Mapping[str, Mapping[str, Any]]]], cases: Sequence[str]
) -> list[str]:
    """Return the structures that both have, in order, after checking that the truth was the same."""
    names: dict[str, None] = {}
    for case in cases:
        for name, row in sides[0][case].items():
            partner = sides[1][case].get(name)
            if partner is None:
                continue
            names[name] = None
            if row["truth_voxels"] != partner["truth_voxels"]:
                raise DataError(
                    f"evaluations, case {case}, {name}",
                    "the two were not evaluated against the same truth",
                    f"{row['truth_voxels']} and {partner['truth_voxels']} voxels",
                    "Evaluate both against one truth, with the same structures.",
                )
    if not names:
        raise DataError("evaluations", "they have no structure in common")
    return list(names)


def _value(row: Mapping[str, Any] | None, measure: str) -> float:
    value = None if row is None else row[measure]
    return float("nan") if value is None else float(value)


def _compare_cases(difference: npt.NDArray[np.float64], drawn: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return the mean over cases of each case's mean difference over its structures, tested."""
    means = row_means(difference)
    (change,), _ = intervals(means[:, None], drawn)
    p = wilcoxon(means[~np.isnan(means)])
    return {"n": change.n, "difference": change.mean, "low": change.low, "high": change.high, "p": p}


def _compare_structures(
    names: Sequence[str],
    tables: Sequence[npt.NDArray[np.float64]],
    measure: str,
    correction: str,
    drawn: npt.NDArray[np.int64],
) -> list[dict[str, Any]]:
    difference = tables[1] - tables[0]
    paired = ~np.isnan(difference)
    unpaired = [(~np.isnan(table) & ~paired).sum(axis=0) for table in tables]
    changes, _ = intervals(difference, drawn)
    p = np.array([wilcoxon(difference[paired[:, column], column]) for column in range(len(names))])
    corrected = corrected_p(p, correction)
    rows = []
    for column, name in enumerate(names):
        pairs = paired[:, column]
        change = changes[column]
        gain = -change.mean if measure in LOWER_IS_BETTER else change.mean
        # A volume error has no better direction: its sign says too large or too small.
        significant = bool(corrected[column] < 0.05) and gain != 0 and measure != "relative_volume_error"
        rows.append(
            {
                "structure": name,
                "n": int(pairs.sum()),
                "only_first": int(unpaired[0][column]),
                "only_second": int(unpaired[1][column]),
                "mean_first": float(tables[0][pairs, column].mean()) if pairs.any() else float("nan"),
                "mean_second": float(tables[1][pairs, column].mean()) if pairs.any() else float("nan"),
                "difference": change.mean,
                "low": change.low,
                "high": change.high,
                "p": float(p[column]),
                "p_corrected": float(corrected[column]),
                "better": ("second" if gain > 0 else "first") if significant else None,
            }
        )
    return sorted(rows, key=lambda row: (np.isnan(row["p_corrected"]), row["p_corrected"], -abs(row["difference"])))


def wilcoxon(differences: npt.NDArray[np.float64]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test; NaN without any difference, 1 where all are 0.

    Differences of 0 are left out, as Wilcoxon did. Up to 12 others, all combinations of signs are tried, so that p is
    exact with ties, too; beyond, it is SciPy's.

    Wilcoxon, F. (1945). Individual comparisons by ranking methods. Biometrics Bulletin 1.

    >>> wilcoxon(np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    0.0625
    """
    if not len(differences):
        return float("nan")
    nonzero = differences[differences != 0]
    if not len(nonzero):
        return 1.0
    if len(nonzero) > _EXACT:
        return float(stats.wilcoxon(nonzero).pvalue)
    ranks = stats.rankdata(np.abs(nonzero))
    signs = (np.arange(2 ** len(nonzero))[:, None] >> np.arange(len(nonzero))) & 1
    center = ranks.sum() / 2
    deviations = np.abs(signs @ ranks - center)
    return float(np.mean(deviations >= abs(ranks[nonzero > 0].sum() - center) - 1e-9))


def corrected_p(p: npt.NDArray[np.float64], correction: str) -> npt.NDArray[np.float64]:
    """Correct p values for their number; NaN are not counted and stay NaN.

    Holm, S. (1979), Scand J Stat 6; Benjamini, Y. and Hochberg, Y. (1995), J R Stat Soc B 57.

    >>> corrected_p(np.array([0.01, 0.04, np.nan, 0.03]), "holm").tolist()
    [0.03, 0.06, nan, 0.06]
    """
    corrected = p.copy()
    tested = np.flatnonzero(~np.isnan(p))
    if correction == "bh" and len(tested):
        corrected[tested] = stats.false_discovery_control(p[tested])
    elif correction == "holm":
        order = tested[np.argsort(p[tested], kind="stable")]
        stepped = p[order] * np.arange(len(order), 0, -1)
        corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0) if len(order) else stepped
    return corrected
