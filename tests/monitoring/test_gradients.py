"""The gradient's norm, and histograms of parameters and gradients."""

import json

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer

from medseg.monitoring import Histograms
from medseg.monitoring.gradients import GradientNorm, histograms, total_norm
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


def test_the_norm_is_that_of_all_gradients_together():
    assert norms(lambda engine: True) == pytest.approx([2**0.5 * 10 * n for n in (1, 2, 3, 4)], rel=1e-5)


def test_accumulated_gradients_count_once_they_are_summed():
    found = norms(lambda engine: True, accumulation=2)
    assert found[0] is None
    assert found[1:] == pytest.approx([2**0.5 * 15, 2**0.5 * 15, 2**0.5 * 35], rel=1e-5)


@pytest.mark.parametrize("after", [False, True])
def test_the_norm_is_taken_before_clipping_in_either_order(after):
    found = norms(lambda engine: True, clip=1.0, after=after)
    assert found == pytest.approx([2**0.5 * 10 * n for n in (1, 2, 3, 4)], rel=1e-5)


def test_the_norm_is_computed_only_when_due_and_not_twice(monkeypatch):
    computed = []
    plain = torch.nn.utils.get_total_norm
    monkeypatch.setattr(torch.nn.utils, "get_total_norm", lambda *given: computed.append(1) or plain(*given))
    found = norms(lambda engine: engine.state.iteration == 3)
    assert [one is None for one in found] == [True, True, False, False]
    assert len(computed) == 1
    norms(lambda engine: True, clip=1.0)
    assert len(computed) == 1


@pytest.mark.parametrize("fused", [False, True])
def test_the_norm_is_unscaled_under_amp(fused):
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


DATA = [{"image": torch.full((1, 2), 10.0 * (1 + n)), "label": torch.full((1, 1), -1e6)} for n in range(4)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_counts_equal_those_of_numpy(dtype):
    torch.manual_seed(0)
    values = torch.randn(37, 11).to(dtype)
    found = histograms({"w": values})["w"]
    counts, edges = np.histogram(values.float().numpy(), 64)
    assert found["edges"] == pytest.approx(edges.tolist(), rel=1e-5, abs=1e-6)
    assert sum(found["counts"]) == values.numel()
    # a value on an edge may fall to either side
    assert np.abs(np.array(found["counts"]) - counts).sum() <= 4


@pytest.mark.parametrize("value", [0.0, 2.5, -1e20])
def test_equal_values_fall_into_one_bin(value):
    found = histograms({"w": torch.full((5,), value)})["w"]
    assert sum(found["counts"]) == max(found["counts"]) == 5
    assert found["edges"][0] < found["edges"][-1]


def test_values_that_are_not_finite_are_not_counted():
    found = histograms({"a": torch.tensor([torch.nan, torch.inf]), "b": torch.tensor([0.0, torch.nan, 1.0])})
    assert list(found) == ["b"]
    assert sum(found["b"]["counts"]) == 2
    json.dumps(found, allow_nan=False)


def rows(folder, every, accumulation=1, clip=None):
    torch.manual_seed(0)
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    handlers = [*([] if clip is None else [ClipGradients(optimizer, clip)]), Histograms(folder, every)]
    SupervisedTrainer(
        torch.device("cpu"), 2, DATA, network, optimizer, torch.nn.L1Loss(), decollate=False, train_handlers=handlers,
        accumulation_steps=accumulation,
    ).run()  # fmt: skip
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def test_histograms_are_recorded_every_n_batches_before_the_step(tmp_path):
    found = rows(tmp_path, 3)
    assert [(row["kind"], row["iteration"]) for row in found] == [("histogram", 3), ("histogram", 6)]
    assert set(found[0]["parameters"]) == set(found[0]["gradients"]) == {"weight", "bias"}
    edges = found[0]["gradients"]["weight"]["edges"]
    assert len(edges) == 65
    assert edges[0] < 30.0 < edges[-1]  # the third batch is all 30


def test_histograms_are_of_the_gradients_that_the_step_takes(tmp_path):
    edges = rows(tmp_path, 3, clip=1.0)[0]["gradients"]["weight"]["edges"]
    assert edges[0] < 0.7 < edges[-1] < 2


def test_with_accumulation_the_next_step_is_recorded(tmp_path):
    assert [row["iteration"] for row in rows(tmp_path, 3, accumulation=2)] == [4, 6]


def test_no_histograms_by_default(tmp_path):
    assert rows(tmp_path, 0) == []
