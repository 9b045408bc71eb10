import monai.losses
import pytest
import torch

from medseg.losses import DiceCELoss
from medseg.monitoring.parts import LossParts

LOGITS = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 3, (2, 1, 8, 8), generator=torch.Generator().manual_seed(1))


def test_monais_loss_and_ours_have_the_same_parts():
    found = []
    for loss in (DiceCELoss(lambda_ce=0.5), monai.losses.DiceCELoss(to_onehot_y=True, softmax=True, lambda_ce=0.5)):
        parts = LossParts()
        parts.follow(loss)
        total = loss(LOGITS.clone().requires_grad_(), LABELS).detach()
        read = parts.read()
        assert not any(one.requires_grad for one in read.values())
        assert float(total) == pytest.approx(float(read["dice"]) + 0.5 * float(read["ce"]), rel=1e-5)
        found.append({name: float(one) for name, one in read.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_parts_are_of_the_last_batch_alone():
    loss = monai.losses.DiceCELoss(to_onehot_y=True, softmax=True)
    parts = LossParts()
    parts.follow(loss)
    loss(LOGITS, LABELS)
    assert set(parts.read()) == {"dice", "ce"}
    assert parts.read() == {}
    parts.follow(None)
    loss(LOGITS, LABELS)
    assert parts.read() == {}


def test_a_loss_that_is_no_sum_has_none():
    parts = LossParts()
    parts.follow(torch.nn.MSELoss())
    assert parts.read() == {}
