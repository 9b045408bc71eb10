import math

import numpy as np
import pytest
from scipy import stats

from medseg.evaluation import bootstrap
from medseg.evaluation.results import json_safe
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


def test_means_are_over_the_cases_that_have_a_value():
    values = bootstrap.score_table(CASES, "dice")
    (liver, spleen), overall = bootstrap.intervals(values, bootstrap.draw_cases(3))
    assert (liver.mean, liver.n) == (pytest.approx(0.8), 3)
    assert (spleen.mean, spleen.n) == (0.5, 1)
    assert math.isnan(spleen.low)  # one value says nothing of its spread
    assert overall.mean == pytest.approx((0.8 + 0.5) / 2)
    assert overall.n == 2
    assert liver.low < liver.mean < liver.high


def test_structures_without_any_value_have_no_mean():
    values = np.array([[np.nan, 0.5], [np.nan, 0.7]])
    (never, measured), overall = bootstrap.intervals(values, bootstrap.draw_cases(2))
    assert math.isnan(never.mean)
    assert never.n == 0
    assert overall.mean == measured.mean == pytest.approx(0.6)
    nothing = np.full((2, 2), np.nan)
    assert math.isnan(bootstrap.intervals(nothing, bootstrap.draw_cases(2))[1].mean)


def test_the_interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).beta(8, 2, (40, 1))
    (first,), overall = bootstrap.intervals(values, bootstrap.draw_cases(40, 20000))
    expected = stats.bootstrap(
        (values[:, 0],), np.mean, n_resamples=20000, method="percentile", rng=1
    ).confidence_interval
    assert first.low == pytest.approx(expected.low, abs=2e-3)
    assert first.high == pytest.approx(expected.high, abs=2e-3)
    assert overall == first._replace(n=1)


def test_the_same_seed_draws_the_same_cases():
    assert np.array_equal(bootstrap.draw_cases(5, 10, 3), bootstrap.draw_cases(5, 10, 3))
    assert not np.array_equal(bootstrap.draw_cases(5, 10, 3), bootstrap.draw_cases(5, 10, 4))
    assert (bootstrap.draw_cases(5, 10).sum(axis=1) == 5).all()


def test_a_resampled_mean_is_the_mean_of_the_drawn_cases():
    values = np.array([[1.0, np.nan], [2.0, 5.0], [4.0, 7.0]])
    drawn = np.array([[2, 0, 1], [3, 0, 0]])
    result = bootstrap.resampled_means(values, drawn)
    assert result[0].tolist() == [2.0, 7.0]
    assert result[1, 0] == 1.0
    assert math.isnan(result[1, 1])


def test_cases_have_means_and_structures_have_counts():
    means = bootstrap.case_means(CASES, ["dice"])
    assert means["b"]["dice"] == pytest.approx(0.6)
    assert means["a"]["dice"] == 0.9
    states = bootstrap.count_states(
        {
            "a": [StructureScores("liver", "missed", 4, 0, 1, 0, {})],
            "b": [StructureScores("liver", "false positive", 0, 4, 0, 1, {})],
            "c": [StructureScores("liver", "not annotated", 0, 0, 0, 0, {})],
            "d": [StructureScores("liver", "found", 3, 3, 1, 1, {})],
        }
    )
    counts = {"annotated": 3, "present": 2, "missed": 1, "false_positive": 1, "invented_voxels": 4}
    assert states == {"liver": counts}


def test_nan_and_infinity_become_none_in_json():
    assert json_safe({"a": [1, math.nan, (math.inf, "x")]}) == {"a": [1, None, [None, "x"]]}
