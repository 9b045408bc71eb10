import math

import numpy as np
import pytest
from scipy import stats

from medseg.evaluation import summary
from medseg.metrics import StructureScores


def rows(**dice):
    return [
        StructureScores(name, *("found", 5, 5) if value == value else ("absent", 0, 0), 1.0, 1.0, {"dice": value})
        for name, value in dice.items()
    ]


CASES = {
    "a": rows(liver=0.9, spleen=math.nan),
    "b": rows(liver=0.7, spleen=0.5),
    "c": rows(liver=0.8, spleen=math.nan),
}


def test_each_mean_is_over_the_cases_that_have_a_value():
    values = summary.table(CASES, "dice")
    (liver, spleen), overall = summary.intervals(values, summary.weights(3))
    assert (liver.mean, liver.n) == (pytest.approx(0.8), 3)
    assert (spleen.mean, spleen.n) == (0.5, 1)
    assert math.isnan(spleen.low)  # one value says nothing of its spread
    assert overall.mean == pytest.approx((0.8 + 0.5) / 2)
    assert overall.n == 2
    assert liver.low < liver.mean < liver.high


def test_structures_and_cases_without_any_value_have_none():
    values = np.array([[np.nan, 0.5], [np.nan, 0.7]])
    (never, held), overall = summary.intervals(values, summary.weights(2))
    assert math.isnan(never.mean)
    assert never.n == 0
    assert overall.mean == held.mean == pytest.approx(0.6)
    nothing = np.full((2, 2), np.nan)
    assert math.isnan(summary.intervals(nothing, summary.weights(2))[1].mean)


def test_the_interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).beta(8, 2, (40, 1))
    (one,), overall = summary.intervals(values, summary.weights(40, 20000))
    wanted = stats.bootstrap(
        (values[:, 0],), np.mean, n_resamples=20000, method="percentile", rng=1
    ).confidence_interval
    assert one.low == pytest.approx(wanted.low, abs=2e-3)
    assert one.high == pytest.approx(wanted.high, abs=2e-3)
    assert overall == one._replace(n=1)


def test_the_same_seed_draws_the_same_cases():
    assert np.array_equal(summary.weights(5, 10, 3), summary.weights(5, 10, 3))
    assert not np.array_equal(summary.weights(5, 10, 3), summary.weights(5, 10, 4))
    assert (summary.weights(5, 10).sum(axis=1) == 5).all()


def test_a_resampled_mean_is_the_mean_of_what_was_drawn():
    values = np.array([[1.0, np.nan], [2.0, 5.0], [4.0, 7.0]])
    drawn = np.array([[2, 0, 1], [3, 0, 0]])
    found = summary.resampled_means(values, drawn)
    assert found[0].tolist() == [2.0, 7.0]
    assert found[1, 0] == 1.0
    assert math.isnan(found[1, 1])


def test_cases_have_means_and_structures_have_counts():
    means = summary.case_means(CASES, ["dice"])
    assert means["b"]["dice"] == pytest.approx(0.6)
    assert means["a"]["dice"] == 0.9
    states = summary.states(
        {
            "a": [StructureScores("liver", "missed", 4, 0, 1, 0, {})],
            "b": [StructureScores("liver", "false positive", 0, 4, 0, 1, {})],
            "c": [StructureScores("liver", "not annotated", 0, 0, 0, 0, {})],
            "d": [StructureScores("liver", "found", 3, 3, 1, 1, {})],
        }
    )
    assert states == {"liver": {"annotated": 3, "present": 2, "missed": 1, "false_positive": 1}}


def test_what_json_has_no_word_for_becomes_none():
    assert summary.plain({"a": [1, math.nan, (math.inf, "x")]}) == {"a": [1, None, [None, "x"]]}
