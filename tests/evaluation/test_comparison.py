import copy
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medseg.errors import DataError, MedsegError
from medseg.evaluation import compare_evaluations
from medseg.evaluation.comparison import corrected_p, wilcoxon

P = st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=12)


def evaluation(name, dice, hd=None):
    """Cases of two structures: the liver's Dice as given, the spleen's always 0.5."""
    cases = [
        {
            "case": f"c{index:02}",
            "structures": [
                {"structure": "liver", "truth_voxels": 9, "dice": value, "hd95_mm": hd[index] if hd else 1.0},
                {"structure": "spleen", "truth_voxels": 4, "dice": 0.5, "hd95_mm": None},
            ],
        }
        for index, value in enumerate(dice)
    ]
    return {"prediction": name, "measures": ["dice", "hd95_mm"], "cases": cases}


def liver(result, measure="dice"):
    return next(row for row in result["measures"][measure] if row["structure"] == "liver")


def test_paired_differences_match_a_calculation_by_hand():
    first, second = evaluation("first", [0.5, 0.6, 0.7, 0.8] * 2), evaluation("second", [0.6, 0.7, 0.8, 0.9] * 2)
    result = compare_evaluations(first, second)
    row = liver(result)
    assert row["difference"] == pytest.approx(0.1)
    assert (row["n"], row["mean_first"], row["mean_second"]) == (8, pytest.approx(0.65), pytest.approx(0.75))
    assert row["p"] == 2 / 2**8
    assert row["p_corrected"] == pytest.approx(2 * 2 / 2**8)  # Holm, two structures
    assert row["better"] == "second"
    assert result["measures"]["dice"][1]["p"] == 1.0  # the spleen does not differ
    assert result["overall"]["dice"]["difference"] == pytest.approx(0.05)
    assert result["smallest_p"] == pytest.approx(4 / 2**8)
    assert liver(compare_evaluations(second, first))["better"] == "first"


def test_lower_is_better_for_distances():
    first, second = (
        evaluation("first", [0.5] * 8, hd=[9.0 + i for i in range(8)]),
        evaluation("second", [0.5] * 8, hd=[2.0] * 8),
    )
    row = liver(compare_evaluations(first, second, ["hd95_mm"]), "hd95_mm")
    assert row["difference"] < 0
    assert row["better"] == "second"


def test_cases_with_a_value_in_only_one_evaluation_are_counted_and_not_paired():
    first, second = evaluation("first", [0.5, None, 0.7]), evaluation("second", [0.6, 0.9, None])
    row = liver(compare_evaluations(first, second))
    assert (row["n"], row["only_first"], row["only_second"]) == (1, 1, 1)
    assert row["difference"] == pytest.approx(0.1)
    assert row["low"] is None
    spleen = next(r for r in compare_evaluations(first, second)["measures"]["hd95_mm"] if r["structure"] == "spleen")
    assert (spleen["n"], spleen["p"], spleen["difference"]) == (0, None, None)


def test_only_common_cases_are_compared():
    first, second = evaluation("first", [0.5, 0.6, 0.7]), evaluation("second", [0.5, 0.6])
    result = compare_evaluations(first, second)
    assert (result["cases"], result["only_first"], result["only_second"]) == (["c00", "c01"], ["c02"], [])
    second["cases"] = [{**case, "case": f"x{case['case']}"} for case in second["cases"]]
    with pytest.raises(DataError, match="they have no case in common"):
        compare_evaluations(first, second)


def test_evaluations_against_different_truths_are_refused():
    first = evaluation("first", [0.5, 0.6])
    second = copy.deepcopy(first)
    second["cases"][1]["structures"][0]["truth_voxels"] = 10
    with pytest.raises(
        DataError, match="c01, liver: the two were not evaluated against the same truth [(]9 and 10 voxels"
    ):
        compare_evaluations(first, second)
    for case in second["cases"]:
        case["structures"] = [{**row, "structure": "heart"} for row in case["structures"]]
    with pytest.raises(DataError, match="they have no structure in common"):
        compare_evaluations(first, second)


def test_unknown_measures_and_corrections_name_the_nearest():
    first = evaluation("first", [0.5])
    with pytest.raises(MedsegError, match=r"measure 'dcie': .* Did you mean 'dice'"):
        compare_evaluations(first, first, ["dcie"])
    with pytest.raises(MedsegError, match=r"must be holm, bh or none [(]got 'hlm'[)]. Did you mean 'holm'"):
        compare_evaluations(first, first, correction="hlm")


@given(st.lists(st.floats(-1, 1).filter(lambda value: abs(value) > 1e-3), min_size=1, max_size=9, unique_by=abs))
def test_exact_p_without_ties_is_scipys(values):
    differences = np.array(values)
    assert wilcoxon(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)


def test_with_ties_p_counts_all_combinations_of_signs():
    differences = np.array([1.0, 1.0, -1.0, 2.0, 2.0, 3.0, 0.0])
    expected = stats.wilcoxon(differences[:-1], method=stats.PermutationMethod()).pvalue
    assert wilcoxon(differences) == pytest.approx(expected)


def test_p_of_many_differences_is_scipys_and_nan_without_any():
    differences = np.random.default_rng(0).normal(0.2, 1, 60)
    assert wilcoxon(differences) == stats.wilcoxon(differences).pvalue
    assert wilcoxon(np.zeros(5)) == 1.0
    assert math.isnan(wilcoxon(np.array([])))


@given(P)
def test_holm_follows_its_definition(values):
    p = np.array(values)
    result = corrected_p(p, "holm")
    assert np.array_equal(np.isnan(result), np.isnan(p))
    tested = np.sort(p[~np.isnan(p)])
    expected = [min(1.0, max((len(tested) - j) * tested[j] for j in range(i + 1))) for i in range(len(tested))]
    np.testing.assert_allclose(np.sort(result[~np.isnan(p)]), expected)


@given(P)
def test_benjamini_hochberg_is_scipys_over_the_tested_structures(values):
    p = np.array(values)
    result, tested = corrected_p(p, "bh"), ~np.isnan(p)
    assert np.array_equal(np.isnan(result), ~tested)
    if tested.any():
        np.testing.assert_allclose(result[tested], stats.false_discovery_control(p[tested]))
    assert np.array_equal(corrected_p(p, "none"), p, equal_nan=True)
