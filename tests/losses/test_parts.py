"""Compare the parts of the last loss with MONAI's Dice and torch's cross-entropy."""

import monai.losses
import pytest
import torch

from medseg.losses import DiceCELoss, MarginalLoss


@pytest.fixture
def batch():
    made = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 12, 9, generator=made).requires_grad_()
    return logits, torch.randint(0, 5, (3, 1, 12, 9), generator=made)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.25, 3.0)])
@pytest.mark.parametrize("options", [{}, {"include_background": False, "batch": True}])
def test_parts_are_dice_and_cross_entropy_before_their_weights(batch, options, weights):
    logits, labels = batch
    loss = DiceCELoss(**options, lambda_dice=weights[0], lambda_ce=weights[1])
    assert loss.parts == {}
    total = loss(logits, labels)
    dice = monai.losses.DiceLoss(to_onehot_y=True, softmax=True, **options)(logits, labels).detach()
    cross = torch.nn.functional.cross_entropy(logits, labels[:, 0]).detach()
    assert float(loss.parts["dice"]) == pytest.approx(float(dice), rel=1e-5)
    assert float(loss.parts["ce"]) == pytest.approx(float(cross), rel=1e-5)
    assert float(total.detach()) == pytest.approx(weights[0] * float(dice) + weights[1] * float(cross), rel=1e-5)
    assert not any(part.requires_grad for part in loss.parts.values())


def test_a_part_without_weight_is_left_out(batch):
    for options, names in (({"lambda_ce": 0.0}, {"dice"}), ({"lambda_dice": 0.0}, {"ce"})):
        loss = DiceCELoss(**options)
        loss(*batch)
        assert set(loss.parts) == names


def test_a_marginal_loss_has_the_parts_of_its_inner_loss(batch):
    loss = MarginalLoss(DiceCELoss())
    loss(*batch)
    assert loss.parts == loss.loss.parts
    assert set(loss.parts) == {"dice", "ce"}
    assert MarginalLoss(monai.losses.DiceLoss(to_onehot_y=True)).parts == {}


def test_parts_are_not_in_the_state_of_the_loss(batch):
    loss = DiceCELoss()
    loss(*batch)
    assert loss.state_dict() == {}
