"""Against MONAI's DiceMetric where both mean the same, and by hand where MONAI's answer misleads."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.engine import Engine
from monai.metrics import DiceMetric
from monai.networks.utils import one_hot

from medseg.errors import GeometryError, LabelError
from medseg.labels import LabelMap
from medseg.metrics import VolumeDice, confusion_matrix, dice, dice_by_structure, multilabel_dice

LABELS = LabelMap(["liver", "spleen", "kidney_left"])


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8))
def test_dice_is_monais_wherever_the_structure_is_in_the_truth(seed, classes):
    rng = np.random.default_rng(seed)
    truth, prediction = rng.integers(0, classes, (2, 6, 5, 4))
    found = dice(confusion_matrix(prediction, truth, classes))
    metric = DiceMetric(include_background=False, reduction="none", ignore_empty=True)
    hot = [one_hot(torch.tensor(part)[None, None], classes) for part in (prediction, truth)]
    wanted = metric(*hot)[0].numpy()
    present = ~np.isnan(wanted)
    np.testing.assert_allclose(found[present], wanted[present], atol=1e-6)


def test_a_confusion_matrix_by_hand():
    truth, prediction = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0])
    assert confusion_matrix(prediction, truth, 3).tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("truth", "prediction", "wanted"),
    [
        ([1, 1, 0, 0], [1, 0, 0, 0], 2 / 3),  # one of two voxels found
        ([0, 0, 0, 0], [0, 0, 0, 0], math.nan),  # absent from both: nothing to say
        ([0, 0, 0, 0], [1, 0, 0, 0], 0.0),  # absent from the truth, but claimed: false, and counted
        ([1, 0, 0, 0], [0, 0, 0, 0], 0.0),  # missed
        ([1, 1, 1, 1], [1, 1, 1, 1], 1.0),
    ],
)
def test_absent_and_false_structures_by_hand(truth, prediction, wanted):
    assert dice(confusion_matrix(np.array(prediction), np.array(truth), 2))[0] == pytest.approx(wanted, nan_ok=True)
    hot = multilabel_dice(np.array([prediction]), np.array([truth]))
    assert hot[0] == pytest.approx(wanted, nan_ok=True)


def test_dice_comes_by_name():
    truth, prediction = np.array([[1, 1], [0, 3]]), np.array([[1, 0], [0, 3]])
    found = dice_by_structure(prediction, truth, LABELS)
    assert found["liver"] == pytest.approx(2 / 3)
    assert math.isnan(found["spleen"])
    assert found["kidney_left"] == 1.0


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
    with pytest.raises(LabelError, match=f"case s1, {which}: must hold labels from 0 to 3, but found"):
        confusion_matrix(np.array([prediction, 0]), np.array([truth, 0]), 4, "s1")


def run(cases, **options):
    """The metric as an evaluator uses it: batches of lists of (1, *spatial)."""
    metric = VolumeDice(LABELS, **options)
    engine = Engine(lambda _, batch: batch)
    metric.attach(engine, "dice")
    engine.run([([torch.tensor(p)[None]], [torch.tensor(t)[None]]) for p, t in cases])
    return engine.state


def test_the_mean_is_over_structures_and_each_over_the_cases_where_it_is():
    liver_and_spleen = ([1, 1, 2, 0], [1, 1, 2, 2])  # prediction, truth: liver 1, spleen 2/3
    liver_alone = ([1, 0, 0, 0], [1, 1, 0, 0])  # liver 2/3
    state = run([liver_and_spleen, liver_alone])
    liver, spleen = (1 + 2 / 3) / 2, 2 / 3
    assert state.metrics["dice"] == pytest.approx((liver + spleen) / 2)
    details = state.metric_details["dice"]
    assert details["by_structure"] == {
        "liver": pytest.approx(liver),
        "spleen": pytest.approx(spleen),
        "kidney_left": None,
    }
    assert details["cases"] == 2


def test_the_metric_forgets_between_epochs():
    metric = VolumeDice(LABELS)
    engine = Engine(lambda _, batch: batch)
    metric.attach(engine, "dice")
    right, wrong = (([torch.tensor([[p]])], [torch.tensor([[1]])]) for p in (1, 2))
    engine.run([wrong])
    engine.run([right])
    assert engine.state.metrics["dice"] == 1.0


def test_the_metric_takes_multilabel_masks():
    metric = VolumeDice(LABELS, multilabel=True)
    engine = Engine(lambda _, batch: batch)
    metric.attach(engine, "dice")
    masks = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 0]])
    engine.run([([masks], [masks])])
    assert engine.state.metrics["dice"] == 1.0
    assert engine.state.metric_details["dice"]["by_structure"]["kidney_left"] is None
