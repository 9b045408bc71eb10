"""Errors of the metrics room, as they are printed."""

import numpy as np
import pytest
import torch

from medseg.errors import MedsegError
from medseg.labels import LabelMap
from medseg.metrics import DiceScore, VolumeScores, dice_by_structure, structure_scores

LABELS = LabelMap(["liver", "spleen"])


def printed(call):
    with pytest.raises(MedsegError) as error:
        call()
    return str(error.value)


def test_label_maps_that_are_none():
    label = np.array([[0, 1]])
    text = "case s1, prediction: must hold labels from 0 to 2 (got 0 to 7)."
    assert printed(lambda: dice_by_structure(np.array([[0, 7]]), label, LABELS, "s1")) == text
    text = (
        "case s1, truth: must hold whole numbers, but some values lie between them. "
        "If it was resampled with interpolation, resample it with nearest neighbor instead."
    )
    assert printed(lambda: dice_by_structure(label, label / 2, LABELS, "s1")) == text
    text = "case s1: must have the truth's shape (1, 2) (got (2, 1))."
    assert printed(lambda: dice_by_structure(label.T, label, LABELS, "s1")) == text


def test_structures_that_were_not_annotated():
    label = np.array([[0, 2]])
    text = "case s1, truth: holds label 2, which is not among the annotated structures. Add it to their list."
    assert printed(lambda: dice_by_structure(label, label, LABELS, "s1", annotated=["liver"])) == text
    text = (
        "case s1, annotated: the list must name at least one structure. "
        "Exclude the case, or leave the list out if everything was annotated."
    )
    assert printed(lambda: dice_by_structure(label, label, LABELS, "s1", annotated=[])) == text


def test_spacings_and_arguments():
    label = np.zeros((3, 3), int)
    text = "a prediction, spacing: must be 2 lengths above 0, in mm (got [ 1., -2.])."
    assert printed(lambda: structure_scores(label, label, LABELS, (1, -2))) == text
    text = "DiceScore, average: must be one of macro, micro, none (got 'mean')."
    assert printed(lambda: DiceScore(3, average="mean")) == text
    plain = torch.zeros(1, 3, 3, 3)
    text = "VolumeScores: distances in mm need a spacing, but the truth has no affine. Pass VolumeScores(spacing=...)."
    assert printed(lambda: VolumeScores(LABELS).update([[plain], [plain]])) == text
