import itertools

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer

from medseg.errors import ConfigError
from medseg.training import ClipGradients

DATA = [{"image": torch.full((1, 2), 10.0 * (1 + n)), "label": torch.full((1, 1), -1e6)} for n in range(4)]


def steps(max_norm=None, accumulation=1):
    """How far SGD with a rate of 1 goes at each step, and the norms that were seen."""
    torch.manual_seed(0)
    network = torch.nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    handlers = [] if max_norm is None else [ClipGradients(optimizer, max_norm)]
    trainer = SupervisedTrainer(
        torch.device("cpu"), 1, DATA, network, optimizer, torch.nn.L1Loss(), train_handlers=handlers,
        decollate=False, accumulation_steps=accumulation,
    )  # fmt: skip
    places, norms = [network.weight.detach().clone()], []

    @trainer.on(Events.ITERATION_COMPLETED)
    def note(engine):
        places.append(network.weight.detach().clone())
        norms.append(float(getattr(engine.state, "gradient_norm", torch.nan)))

    trainer.run()
    assert not optimizer._optimizer_step_pre_hooks
    return [float((b - a).norm()) for a, b in itertools.pairwise(places)], norms


def test_a_step_is_no_longer_than_the_limit():
    free, _ = steps()
    assert free == pytest.approx([2**0.5 * 10 * n for n in (1, 2, 3, 4)], rel=1e-5)
    clipped, norms = steps(max_norm=30.0)
    assert clipped == pytest.approx([min(length, 30.0) for length in free], rel=1e-5)
    assert norms == pytest.approx(free, rel=1e-5)


def test_accumulated_gradients_are_clipped_once_they_are_summed():
    free, _ = steps(accumulation=2)
    assert free == pytest.approx([0, 2**0.5 * 15, 0, 2**0.5 * 35], rel=1e-5)
    clipped, _ = steps(max_norm=30.0, accumulation=2)
    assert clipped == pytest.approx([0, 2**0.5 * 15, 0, 30.0], rel=1e-5)


def test_gradients_scaled_by_amp_are_clipped_as_they_are():
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    trainer = SupervisedTrainer(
        torch.device("cpu"), 1, DATA, torch.nn.Linear(2, 1), optimizer, torch.nn.L1Loss(), decollate=False
    )
    ClipGradients(optimizer, 1.0).attach(trainer)
    trainer.fire_event(Events.STARTED)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale((weight * torch.tensor([0.3, 0.4])).sum()).backward()
    scaler.step(optimizer)
    torch.testing.assert_close(weight.detach(), torch.tensor([-0.3, -0.4]))


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan")])
def test_a_limit_that_is_none(wrong):
    with pytest.raises(ConfigError, match="above 0"):
        ClipGradients(torch.optim.SGD([torch.zeros(1)], lr=1), wrong)
