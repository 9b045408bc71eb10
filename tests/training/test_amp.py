"""The scale that AMP puts on gradients, and who takes it out."""

from types import SimpleNamespace

import pytest
import torch

from medseg.training.step import accumulating, scaler_of, unscale


def at(iteration, scaler=None, accumulation=1, length=None):
    state = SimpleNamespace(iteration=iteration, epoch_length=length)
    return SimpleNamespace(state=state, scaler=scaler, accumulation_steps=accumulation)


def test_a_scaler_that_is_off_is_none():
    on, off = torch.amp.GradScaler("cpu"), torch.amp.GradScaler("cpu", enabled=False)
    assert scaler_of(at(1, on)) is on
    assert scaler_of(at(1, off)) is scaler_of(at(1)) is scaler_of(SimpleNamespace()) is None


@pytest.mark.parametrize(
    ("iteration", "accumulation", "length", "steps"),
    [(1, 1, 4, True), (1, 2, 4, False), (2, 2, 4, True), (5, 3, 5, True), (6, 3, 5, False), (3, 3, None, True)],
)
def test_a_step_comes_after_so_many_batches_and_at_an_epochs_end(iteration, accumulation, length, steps):
    assert accumulating(at(iteration, accumulation=accumulation, length=length)) is not steps


@pytest.mark.parametrize("fused", [False, True])
def test_only_a_fused_optimizer_needs_it_and_only_once(fused):
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    engine = at(1, scaler)
    scaler.scale((weight * torch.tensor([3.0, 4.0])).sum()).backward()
    for _ in range(2):
        unscale(engine, optimizer)
    assert float(weight.grad.norm()) == (5.0 if fused else 5.0 * 1024)
    scaler.step(optimizer)
    assert torch.equal(weight.detach(), torch.tensor([-3.0, -4.0]))
