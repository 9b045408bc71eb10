"""Compare with MONAI's DiceMetric where both mean the same, and by hand where MONAI's value misleads."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.metrics import DiceMetric, compute_iou
from monai.networks.utils import one_hot

from medseg.errors import GeometryError, LabelError
from medseg.labels import LabelMap
from medseg.metrics import (
    annotated_classes,
    confusion_matrix,
    dice,
    dice_by_structure,
    multilabel_dice,
    multilabel_overlap,
    overlap_scores,
)

LABELS = LabelMap(["liver", "spleen", "kidney_left"])
TWICE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


@TWICE
@given(st.integers(0, 10**6), st.integers(2, 8), st.sampled_from(["C", "F"]))
def test_dice_and_iou_are_monais_where_the_truth_has_the_structure(either, seed, classes, order):
    rng = np.random.default_rng(seed)
    truth, prediction = (np.array(one, order=order) for one in rng.integers(0, classes, (2, 6, 5, 4)))
    result = overlap_scores(confusion_matrix(prediction, truth, classes))
    hot = [one_hot(torch.tensor(part)[None, None], classes) for part in (prediction, truth)]
    metric = DiceMetric(include_background=False, reduction="none", ignore_empty=True)
    for ours, expected in (
        (result.dice, metric(*hot)[0].numpy()),
        (result.iou, compute_iou(*hot, include_background=False, ignore_empty=True)[0].numpy()),
    ):
        present = ~np.isnan(expected)
        np.testing.assert_allclose(ours[present], expected[present], atol=1e-6)


@TWICE
@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([np.uint8, np.int16, np.int64, np.float32, bool]))
def test_every_score_is_that_of_counting_voxels(either, seed, structures, kind):
    rng = np.random.default_rng(seed)
    truth, prediction = rng.integers(0, 2 if kind is bool else structures + 1, (2, 3, 4, 5)).astype(kind)
    result = overlap_scores(confusion_matrix(prediction, truth, structures + 1))
    for index in range(structures):
        t, p = truth == index + 1, prediction == index + 1
        both, either_ = (t & p).sum(), (t | p).sum()
        for name, part, whole in (
            ("dice", 2 * both, t.sum() + p.sum()),
            ("f1", 2 * both, t.sum() + p.sum()),
            ("iou", both, either_),
            ("precision", both, p.sum()),
            ("recall", both, t.sum()),
            ("relative_volume_error", int(p.sum()) - int(t.sum()), t.sum()),
        ):
            expected = part / whole if whole else math.nan
            assert getattr(result, name)[index] == pytest.approx(expected, nan_ok=True), name


def test_a_confusion_matrix_by_hand(either):
    truth, prediction = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0])
    assert confusion_matrix(prediction, truth, 3).tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]


def test_tensors_and_arrays_count_alike(either):
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 300, (2, 40, 30, 20))
    expected = np.zeros((300, 300), int)
    np.add.at(expected, (truth.ravel(), prediction.ravel()), 1)
    assert np.array_equal(confusion_matrix(prediction, truth, 300), expected)
    assert np.array_equal(confusion_matrix(torch.tensor(prediction), torch.tensor(truth), 300), expected)
    assert np.array_equal(confusion_matrix(prediction, np.asfortranarray(truth), 300), expected)


@pytest.mark.parametrize(
    ("truth", "prediction", "expected", "state"),
    [
        ([1, 1, 0, 0], [1, 0, 0, 0], 2 / 3, "found"),  # one of two voxels found
        ([0, 0, 0, 0], [0, 0, 0, 0], math.nan, "absent"),  # absent from both: nothing to say
        ([0, 0, 0, 0], [1, 0, 0, 0], 0.0, "false positive"),  # absent from the truth, but claimed: false, and counted
        ([1, 0, 0, 0], [0, 0, 0, 0], 0.0, "missed"),
        ([1, 1, 1, 1], [1, 1, 1, 1], 1.0, "found"),
        ([1, 0, 0, 0], [0, 1, 0, 0], 0.0, "found"),  # in both, and wrong
    ],
)
@pytest.mark.parametrize("annotated", [True, False])
def test_every_state_of_a_structure_by_hand(truth, prediction, expected, state, annotated):
    counts = confusion_matrix(np.array(prediction), np.array(truth), 2)
    hot = np.array([prediction]), np.array([truth])
    if not annotated and any(truth):  # a truth cannot hold what nobody looked for
        for make in (lambda: overlap_scores(counts, [True, False]), lambda: multilabel_overlap(*hot, [True, False])):
            with pytest.raises(LabelError, match="holds label 1, which is not among the annotated structures"):
                make()
        return
    mask = [True, annotated]
    for result in (overlap_scores(counts, mask), multilabel_overlap(*hot, mask)):
        assert result.states == (state if annotated else "not annotated",)
        assert result.dice[0] == pytest.approx(expected if annotated else math.nan, nan_ok=True)
        assert result.predicted[0] == (sum(prediction) if annotated else 0)


def test_predictions_of_unannotated_structures_count_as_background():
    truth = np.array([0, 0, 1, 1, 1])  # liver; nobody looked for the spleen
    prediction = np.array([2, 2, 1, 1, 2])
    result = overlap_scores(confusion_matrix(prediction, truth, 3), [True, True, False])
    assert result.dice[0] == pytest.approx(2 * 2 / (2 + 3))  # one voxel of liver was missed, none is false
    assert result.precision[0] == 1.0
    assert result.recall[0] == pytest.approx(2 / 3)
    assert math.isnan(result.dice[1])
    assert math.isnan(result.precision[1])
    as_background = np.where(prediction == 2, 0, prediction)
    assert result.dice[0] == dice(confusion_matrix(as_background, truth, 3))[0]


def test_precision_and_recall_are_nan_without_voxels():
    missed = overlap_scores(confusion_matrix(np.array([0, 0]), np.array([1, 0]), 2))
    assert math.isnan(missed.precision[0])
    assert missed.recall[0] == 0.0
    assert missed.relative_volume_error[0] == -1.0
    false = overlap_scores(confusion_matrix(np.array([1, 0]), np.array([0, 0]), 2))
    assert false.precision[0] == 0.0
    assert math.isnan(false.recall[0])
    assert math.isnan(false.relative_volume_error[0])


def test_dice_by_structure_has_the_names():
    truth, prediction = np.array([[1, 1], [0, 3]]), np.array([[1, 0], [0, 3]])
    result = dice_by_structure(prediction, truth, LABELS)
    assert result["liver"] == pytest.approx(2 / 3)
    assert math.isnan(result["spleen"])
    assert result["kidney_left"] == 1.0
    partly = dice_by_structure(prediction, truth, LABELS, annotated=["liver", "kidney_left"])
    assert {name for name, score in partly.items() if not math.isnan(score)} == {"liver", "kidney_left"}


def test_annotated_names_become_classes():
    assert annotated_classes(LABELS, None) is None
    assert annotated_classes(LABELS, ("kidney_left", "liver")).tolist() == [True, True, False, True]
    with pytest.raises(LabelError, match="case s7, annotated: the list must name at least one structure"):
        annotated_classes(LABELS, [], "s7")
    with pytest.raises(LabelError, match="Did you mean 'liver'"):
        annotated_classes(LABELS, ["livr"])
    with pytest.raises(LabelError, match=r"case s1, annotated: must hold a value for each of 4 .*got shape \(2,\)"):
        overlap_scores(np.zeros((4, 4), int), [True, True], "s1")


def test_multilabel_channels_may_overlap():
    truth = np.zeros((2, 4), bool)
    truth[0, :2], truth[1, 1:3] = True, True
    prediction = truth.copy()
    prediction[1, 0] = True
    assert multilabel_dice(prediction, truth).tolist() == [1.0, pytest.approx(4 / 5)]


@pytest.mark.parametrize("function", [lambda a, b: confusion_matrix(a, b, 2, "s1"), multilabel_dice])
def test_shapes_that_differ_are_refused(function):
    with pytest.raises(GeometryError, match="must have the truth's shape"):
        function(np.zeros((2, 3), int), np.zeros((3, 2), int))


@pytest.mark.parametrize(("truth", "prediction", "which"), [(5, 0, "truth"), (0, 5, "prediction"), (-1, 0, "truth")])
def test_a_label_out_of_range_names_case_side_and_value(truth, prediction, which):
    with pytest.raises(LabelError, match=f"case s1, {which}: must hold labels from 0 to 3 [(]got"):
        confusion_matrix(np.array([prediction, 0]), np.array([truth, 0]), 4, "s1")
