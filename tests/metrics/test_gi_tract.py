"""Compare with figures by hand, and with SciPy's directed Hausdorff distance on the indices of all voxels."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import directed_hausdorff

from medseg.errors import ConfigError, DataError, GeometryError, LabelError
from medseg.metrics import GITractScores, gi_tract_score, gi_tract_scores
from medseg.metrics.gi_tract import normalized_hausdorff


def masks(structures=1, shape=(6, 8, 5)):
    return np.zeros((2, structures, *shape), bool)


def test_the_score_of_two_structures_by_hand():
    truth, prediction = masks(2)
    truth[0, 1, 1:5, 0] = True  # 4 pixels, 2 of them found, 2 beside it
    prediction[0, 1, 3:7, 0] = True
    truth[0, 2, 2, 1] = prediction[0, 2, 2, 1] = True
    prediction[0, 0, 0, 2] = True  # a false alarm in a slice that has none
    truth[1, 5, 7, 4] = True  # the second structure is missed
    scores = gi_tract_scores(prediction, truth)
    nan = math.nan
    np.testing.assert_array_equal(scores.dice, [[0.5, 1, 0, nan, nan], [nan, nan, nan, nan, 0]])
    # (0, 0, 2) to (2, 2, 1) is 3, to (1, 1, 0) sqrt(6); (1, 6, 0) to (1, 4, 0) is 2
    diagonal = math.sqrt(36 + 64 + 25)
    np.testing.assert_allclose(scores.hausdorff, [math.sqrt(6) / diagonal, 1])
    expected = 0.4 * (0.5 + 1 + 0 + 0) / 4 + 0.6 * (1 - (math.sqrt(6) / diagonal + 1) / 2)
    assert gi_tract_score([scores]) == pytest.approx(expected)


def test_scans_are_pooled_and_not_averaged():
    many, few = GITractScores(np.ones((1, 9)), np.zeros(1)), GITractScores(np.zeros((1, 1)), np.ones(1))
    assert gi_tract_score([many, few]) == pytest.approx(0.4 * 0.9 + 0.6 * 0.5)


def test_structures_empty_on_one_or_both_sides():
    truth, prediction = masks()
    nothing = gi_tract_scores(prediction, truth)
    assert np.isnan(nothing.dice).all()
    assert np.isnan(nothing.hausdorff).all()
    assert math.isnan(gi_tract_score([nothing]))
    truth[0, 3, 3, 3] = True
    missed, alarm = gi_tract_scores(prediction, truth), gi_tract_scores(truth, prediction)
    assert missed.hausdorff.tolist() == alarm.hausdorff.tolist() == [1.0]
    assert gi_tract_score([missed]) == gi_tract_score([alarm]) == 0.0
    perfect = gi_tract_scores(truth, truth)
    assert gi_tract_score([perfect]) == gi_tract_score([perfect, nothing]) == 1.0
    with pytest.raises(DataError, match="at least one scan"):
        gi_tract_score([])


def test_the_largest_distance_there_can_be_stays_below_one():
    truth, prediction = masks()
    truth[0, 0, 0, 0] = prediction[0, -1, -1, -1] = True
    for normalized, expected in (
        ("diagonal", math.sqrt(25 + 49 + 16) / math.sqrt(125)),
        ("axes", math.sqrt((5 / 6) ** 2 + (7 / 8) ** 2 + (4 / 5) ** 2) / math.sqrt(3)),
    ):
        assert gi_tract_scores(prediction, truth, normalized=normalized).hausdorff[0] == pytest.approx(expected)


@pytest.mark.parametrize("normalized", ["diagonal", "axes"])
@pytest.mark.parametrize("seed", range(6))
def test_hausdorff_is_scipys(normalized, seed):
    draw = np.random.default_rng(seed)
    shape = tuple(draw.integers(3, 14, 3))
    one, other = (draw.random(shape) < share for share in draw.choice([0.02, 0.1, 0.5], 2))
    one[0, 0, 0] = other[-1, 0, -1] = True
    steps = np.ones(3) if normalized == "diagonal" else 1 / np.array(shape)
    whole = math.sqrt(sum(size**2 for size in shape)) if normalized == "diagonal" else math.sqrt(3)
    places = [np.argwhere(mask) * steps for mask in (one, other)]
    expected = max(directed_hausdorff(*places)[0], directed_hausdorff(*places[::-1])[0]) / whole
    assert normalized_hausdorff(one, other, normalized) == pytest.approx(expected)


def test_a_hole_counts_by_all_voxels_and_not_by_surfaces():
    truth, prediction = np.ones((2, 9, 9, 9), bool)
    prediction[4, 4, 4] = False
    assert normalized_hausdorff(prediction, truth) == pytest.approx(1 / math.sqrt(243))


def test_label_maps_are_their_masks():
    draw = np.random.default_rng(0)
    truth, prediction = draw.integers(0, 4, (2, 7, 6, 5))
    result = gi_tract_scores(prediction, truth, num_classes=4)
    stacked = [np.stack([part == number for number in (1, 2, 3)]) for part in (prediction, truth)]
    expected = gi_tract_scores(*stacked)
    np.testing.assert_array_equal(result.dice, expected.dice)
    np.testing.assert_array_equal(result.hausdorff, expected.hausdorff)
    assert result.dice.shape == (3, 5)


def test_wrong_shapes_labels_and_arguments_are_refused():
    truth, prediction = masks()
    with pytest.raises(GeometryError, match="case x: must have the truth's shape"):
        gi_tract_scores(prediction[..., :2], truth, case="x")
    with pytest.raises(GeometryError, match=r"\(structures, I, J, slices\) [(]got \(6, 8, 5\)"):
        gi_tract_scores(prediction[0], truth[0])
    with pytest.raises(GeometryError, match=r"\(I, J, slices\)"):
        gi_tract_scores(prediction, truth, num_classes=2)
    with pytest.raises(LabelError, match="labels from 0 to 1"):
        gi_tract_scores(truth[0] + 2, truth[0], num_classes=2)
    with pytest.raises(ConfigError, match="must be diagonal or axes"):
        gi_tract_scores(prediction, truth, normalized="mm")
