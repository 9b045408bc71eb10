import copy
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medseg.errors import DataError, MedsegError
from medseg.evaluation import compare
from medseg.evaluation.comparing import corrected_p, wilcoxon

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


def liver(found, measure="dice"):
    return next(row for row in found["measures"][measure] if row["structure"] == "liver")


def test_paired_differences_by_hand():
    one, other = evaluation("one", [0.5, 0.6, 0.7, 0.8] * 2), evaluation("other", [0.6, 0.7, 0.8, 0.9] * 2)
    found = compare(one, other)
    row = liver(found)
    assert row["difference"] == pytest.approx(0.1)
    assert (row["n"], row["mean_one"], row["mean_other"]) == (8, pytest.approx(0.65), pytest.approx(0.75))
    assert row["p"] == 2 / 2**8
    assert row["p_corrected"] == pytest.approx(2 * 2 / 2**8)  # Holm, two structures
    assert row["better"] == "other"
    assert found["measures"]["dice"][1]["p"] == 1.0  # the spleen does not differ
    assert found["overall"]["dice"]["difference"] == pytest.approx(0.05)
    assert found["smallest_p"] == pytest.approx(4 / 2**8)
    assert liver(compare(other, one))["better"] == "one"


def test_less_is_better_for_distances():
    one, other = (
        evaluation("one", [0.5] * 8, hd=[9.0 + i for i in range(8)]),
        evaluation("other", [0.5] * 8, hd=[2.0] * 8),
    )
    row = liver(compare(one, other, ["hd95_mm"]), "hd95_mm")
    assert row["difference"] < 0
    assert row["better"] == "other"


def test_cases_with_a_value_on_one_side_alone_are_no_pairs_and_counted():
    one, other = evaluation("one", [0.5, None, 0.7]), evaluation("other", [0.6, 0.9, None])
    row = liver(compare(one, other))
    assert (row["n"], row["only_one"], row["only_other"]) == (1, 1, 1)
    assert row["difference"] == pytest.approx(0.1)
    assert row["low"] is None
    spleen = next(r for r in compare(one, other)["measures"]["hd95_mm"] if r["structure"] == "spleen")
    assert (spleen["n"], spleen["p"], spleen["difference"]) == (0, None, None)


def test_only_cases_of_both_are_compared():
    one, other = evaluation("one", [0.5, 0.6, 0.7]), evaluation("other", [0.5, 0.6])
    found = compare(one, other)
    assert (found["cases"], found["only_one"], found["only_other"]) == (["c00", "c01"], ["c02"], [])
    other["cases"] = [{**case, "case": f"x{case['case']}"} for case in other["cases"]]
    with pytest.raises(DataError, match="must have a case in common"):
        compare(one, other)


def test_another_truth_is_refused():
    one = evaluation("one", [0.5, 0.6])
    other = copy.deepcopy(one)
    other["cases"][1]["structures"][0]["truth_voxels"] = 10
    with pytest.raises(DataError, match="case c01, liver: must have been held against the same truth [(]9 and 10"):
        compare(one, other)
    for case in other["cases"]:
        case["structures"] = [{**row, "structure": "heart"} for row in case["structures"]]
    with pytest.raises(DataError, match="a structure in common"):
        compare(one, other)


def test_unknown_measures_and_corrections_name_the_nearest():
    one = evaluation("one", [0.5])
    with pytest.raises(MedsegError, match=r"measure 'dcie': .* Did you mean 'dice'"):
        compare(one, one, ["dcie"])
    with pytest.raises(MedsegError, match=r"correction 'hlm': .* Did you mean 'holm'"):
        compare(one, one, correction="hlm")


@given(st.lists(st.floats(-1, 1).filter(lambda value: abs(value) > 1e-3), min_size=1, max_size=9, unique_by=abs))
def test_without_ties_the_exact_p_is_scipys(values):
    differences = np.array(values)
    assert wilcoxon(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)


def test_with_ties_the_p_is_that_of_all_signs():
    differences = np.array([1.0, 1.0, -1.0, 2.0, 2.0, 3.0, 0.0])
    wanted = stats.wilcoxon(differences[:-1], method=stats.PermutationMethod()).pvalue
    assert wilcoxon(differences) == pytest.approx(wanted)


def test_many_differences_are_scipys_and_none_have_no_p():
    differences = np.random.default_rng(0).normal(0.2, 1, 60)
    assert wilcoxon(differences) == stats.wilcoxon(differences).pvalue
    assert wilcoxon(np.zeros(5)) == 1.0
    assert math.isnan(wilcoxon(np.array([])))


@given(P)
def test_holm_by_its_definition(values):
    p = np.array(values)
    found = corrected_p(p, "holm")
    assert np.array_equal(np.isnan(found), np.isnan(p))
    known = np.sort(p[~np.isnan(p)])
    wanted = [min(1.0, max((len(known) - j) * known[j] for j in range(i + 1))) for i in range(len(known))]
    np.testing.assert_allclose(np.sort(found[~np.isnan(p)]), wanted)


@given(P)
def test_benjamini_hochberg_is_scipys_over_those_that_were_tested(values):
    p = np.array(values)
    found, known = corrected_p(p, "bh"), ~np.isnan(p)
    assert np.array_equal(np.isnan(found), ~known)
    if known.any():
        np.testing.assert_allclose(found[known], stats.false_discovery_control(p[known]))
    assert np.array_equal(corrected_p(p, "none"), p, equal_nan=True)
