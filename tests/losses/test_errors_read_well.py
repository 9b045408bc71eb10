"""Errors of the losses room, as they are printed."""

import pytest
import torch

from medseg.errors import MedsegError
from medseg.losses import DiceCELoss

LOGITS, LABELS = torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.int64)


def printed(call):
    with pytest.raises(MedsegError) as error:
        call()
    return str(error.value)


def test_options_and_weights():
    text = "DiceCELoss, label_smoothing: must be from 0 to 1 (got 1.5)."
    assert printed(lambda: DiceCELoss(label_smoothing=1.5)) == text
    text = "DiceCELoss, weight: must hold a number for each of 3 classes (got 2)."
    assert printed(lambda: DiceCELoss(weight=[1.0, 2.0])(LOGITS, LABELS)) == text


def test_labels_out_of_range():
    text = (
        "case s7: labels must lie between 0 and 2 (got 5 in 16 voxels). "
        "Compare its label map with the network's classes, or pass the value as ignore_index."
    )
    assert printed(lambda: DiceCELoss()(LOGITS, LABELS + 5, cases=["s7"])) == text


def test_shapes_and_types():
    text = "labels: must have the shape (1, 1, 4, 4) for these logits (got shape (1, 4, 4))."
    assert printed(lambda: DiceCELoss()(LOGITS, LABELS[0])) == text
    text = "labels: must be class indices of an integer type (got torch.float32). Cast them in the transforms."
    assert printed(lambda: DiceCELoss()(LOGITS, LABELS.float())) == text


def test_cases_without_annotated_structures():
    text = "case s7: none of the network's structures is annotated, so there is nothing to learn. Exclude the case."
    assert printed(lambda: DiceCELoss()(LOGITS, LABELS, annotated=[[]], cases=["s7"])) == text


def test_second_derivatives():
    logits = LOGITS.clone().requires_grad_()
    (slope,) = torch.autograd.grad(DiceCELoss()(logits, LABELS), logits, create_graph=True)
    text = "DiceCELoss: has no second derivative. Use monai.losses.DiceCELoss for gradients of gradients."
    assert printed(lambda: slope.sum().backward()) == text
