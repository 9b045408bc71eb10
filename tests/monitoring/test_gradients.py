import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer

from medseg.monitoring.gradients import GradientNorm, total_norm
from medseg.training import ClipGradients

DATA = [{"image": torch.full((1, 2), 10.0 * (1 + n)), "label": torch.full((1, 1), -1e6)} for n in range(4)]


def norms(wanted, accumulation=1, clip=None, after=False):
    """The norm that is read after each batch, and how often it was computed."""
    torch.manual_seed(0)
    network = torch.nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    norm, found = GradientNorm(wanted), []
    handlers = [norm, *([] if clip is None else [ClipGradients(optimizer, clip)])]
    trainer = SupervisedTrainer(
        torch.device("cpu"), 1, DATA, network, optimizer, torch.nn.L1Loss(), decollate=False,
        train_handlers=handlers if after else handlers[::-1], accumulation_steps=accumulation,
    )  # fmt: skip
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: found.append(norm.read()))
    trainer.run()
    assert not optimizer._optimizer_step_pre_hooks
    return found


def test_it_is_that_of_all_gradients_together():
    assert norms(lambda engine: True) == pytest.approx([2**0.5 * 10 * n for n in (1, 2, 3, 4)], rel=1e-5)


def test_accumulated_gradients_count_once_they_are_summed():
    found = norms(lambda engine: True, accumulation=2)
    assert found[0] is None
    assert found[1:] == pytest.approx([2**0.5 * 15, 2**0.5 * 15, 2**0.5 * 35], rel=1e-5)


@pytest.mark.parametrize("after", [False, True])
def test_it_is_taken_before_clipping_whoever_comes_first(after):
    found = norms(lambda engine: True, clip=1.0, after=after)
    assert found == pytest.approx([2**0.5 * 10 * n for n in (1, 2, 3, 4)], rel=1e-5)


def test_it_is_computed_for_the_steps_that_are_wanted_alone_and_not_where_clipping_did(monkeypatch):
    computed = []
    plain = torch.nn.utils.get_total_norm
    monkeypatch.setattr(torch.nn.utils, "get_total_norm", lambda *given: computed.append(1) or plain(*given))
    found = norms(lambda engine: engine.state.iteration == 3)
    assert [one is None for one in found] == [True, True, False, False]
    assert len(computed) == 1
    norms(lambda engine: True, clip=1.0)
    assert len(computed) == 1


@pytest.mark.parametrize("fused", [False, True])
def test_what_amp_scaled_is_measured_as_it_is(fused):
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0, fused=fused)
    trainer = SupervisedTrainer(
        torch.device("cpu"), 1, DATA, torch.nn.Linear(2, 1), optimizer, torch.nn.L1Loss(), decollate=False
    )
    norm = GradientNorm(lambda engine: True)
    norm.attach(trainer)
    trainer.fire_event(Events.STARTED)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale((weight * torch.tensor([0.3, 0.4])).sum()).backward()
    scaler.step(optimizer)
    assert norm.read() == pytest.approx(0.5)


def test_no_gradients_have_no_norm():
    assert total_norm([torch.nn.Parameter(torch.ones(2))]) is None
