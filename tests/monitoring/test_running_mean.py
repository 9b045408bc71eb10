"""Running means of the loss and its parts."""

import random

import monai.losses
import pytest
import torch

from medseg.losses import DiceCELoss
from medseg.monitoring.running_mean import LossParts, RunningMean


def numbers(count, seed=0):
    made = random.Random(seed)
    return [torch.tensor(made.uniform(-3, 7), dtype=torch.float32, requires_grad=True) for _ in range(count)]


def test_means_and_the_latest_values():
    means = RunningMean()
    values = [value.detach() for value in numbers(50)]
    for value in values:
        means.add({"loss": value, "ce_loss": value.double() * 2})
    total = sum(float(value) for value in values)
    assert means.mean("loss") == total / 50
    assert means.last() == {"loss": float(values[-1]), "ce_loss": 2 * float(values[-1])}
    assert means.mean("dice_loss") is None


def test_a_resumed_sum_is_bit_exact_however_often_it_was_read():
    values = numbers(101)
    whole, first, second = RunningMean(), RunningMean(), RunningMean()
    for number, value in enumerate(values):
        whole.add({"loss": value})
        if number % 7 == 0:
            whole.last()
    for value in values[:37]:
        first.add({"loss": value})
    second.load_state_dict(first.state_dict())
    for value in values[37:]:
        second.add({"loss": value})
    assert whole.mean("loss") == second.mean("loss")


def test_nothing_is_read_from_the_device_before_it_is_asked_for(monkeypatch):
    reads = []
    plain = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: reads.append(len(self)) or plain(self))
    means = RunningMean()
    for value in numbers(10):
        means.add({"loss": value, "dice_loss": value})
    assert reads == []
    means.last()
    means.mean("loss")
    assert reads == [20]


def test_no_graph_stays_in_memory():
    means = RunningMean()
    (value,) = numbers(1)
    means.add({"loss": value * 2})
    assert not means._waiting[0]["loss"].requires_grad


def test_the_state_is_plain_numbers():
    means = RunningMean()
    means.add({"loss": torch.tensor(2.0)})
    means.count("grad_norm", 3.0)
    assert means.state_dict() == {"loss": [2.0, 1], "grad_norm": [3.0, 1]}
    means.clear()
    assert means.state_dict() == {}


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


def test_parts_are_those_of_the_last_batch():
    loss = monai.losses.DiceCELoss(to_onehot_y=True, softmax=True)
    parts = LossParts()
    parts.follow(loss)
    loss(LOGITS, LABELS)
    assert set(parts.read()) == {"dice", "ce"}
    assert parts.read() == {}
    parts.follow(None)
    loss(LOGITS, LABELS)
    assert parts.read() == {}


def test_a_loss_without_parts_has_none():
    parts = LossParts()
    parts.follow(torch.nn.MSELoss())
    assert parts.read() == {}
