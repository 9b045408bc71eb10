import json

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents

from medseg.errors import ConfigError, TrainingError
from medseg.training import ClipGradients, EpochSampler, NanGuard

NAN, INF = float("nan"), float("inf")
HUGE = 1e30  # finite, and its square is not


class Batches(list):
    batch_size = 2


def batches(values, label=1.0):
    """One batch of two samples for each value of the image, cases named by their place."""
    return Batches(
        {
            "image": torch.tensor([[1.0, 1.0], [value, 1.0]]),
            "label": torch.full((2, 1), label),
            "case": [f"s{2 * n}", f"s{2 * n + 1}"],
        }
        for n, value in enumerate(values)
    )


def make(data, loss=None, lr=0.01, accumulation=1, clip=None, **options):
    torch.manual_seed(0)
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    guard = NanGuard(optimizer, **options)
    handlers = [guard] if clip is None else [ClipGradients(optimizer, clip), guard]
    trainer = SupervisedTrainer(
        torch.device("cpu"), 1, data, network, optimizer, loss or torch.nn.MSELoss(), train_handlers=handlers,
        decollate=False, accumulation_steps=accumulation,
    )  # fmt: skip
    return trainer, network, guard


def weights(network):
    return torch.cat([one.detach().flatten() for one in network.parameters()])


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_loss_that_is_no_number_stops_before_the_step_and_names_the_cases(tmp_path, clip):
    trainer, network, _ = make(batches([1.0, 2.0, NAN, 3.0]), clip=clip, folder=tmp_path)
    before = []
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda: before.append(weights(network)))
    with pytest.raises(TrainingError) as caught:
        trainer.run()
    text = str(caught.value)
    assert text.startswith("epoch 1, iteration 3: loss or gradient is not finite: an image of s5; a loss")
    assert "batch of s4, s5" in text
    assert "the same command resumes from it" in text
    assert torch.equal(weights(network), before[2])
    assert not torch.equal(before[2], before[0])
    (row,) = rows(tmp_path)
    assert (row["kind"], row["level"], row["iteration"], row["text"]) == ("warning", "error", 3, text)


class BadGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * INF


def test_a_gradient_that_is_not_finite_stops_although_the_loss_is(tmp_path):
    def loss(prediction, label):
        error = torch.nn.functional.mse_loss(prediction, label)
        return BadGradient.apply(error) if float(trainer.state.iteration) == 2 else error

    trainer, network, _ = make(batches([1.0, 2.0, 3.0]), loss)
    with pytest.raises(TrainingError, match=r"iteration 2.*gradients of 2 parameters \(weight, bias\)"):
        trainer.run()
    assert torch.isfinite(weights(network)).all()


def test_accumulated_batches_stop_at_the_one_that_brought_it():
    trainer, network, _ = make(batches([1.0, NAN, 1.0, 1.0]), accumulation=4)
    before = weights(network)
    with pytest.raises(TrainingError, match=r"iteration 2: .*batch of s2, s3"):
        trainer.run()
    assert torch.equal(weights(network), before)


def test_the_draws_are_named_by_the_order_of_the_epoch():
    sampler = EpochSampler(cases=2, draws=3, seed=5)
    keys = list(sampler)
    trainer, _, _ = make(batches([1.0, NAN, 1.0]), sampler=sampler)
    with pytest.raises(TrainingError, match=rf"s2 \(draw {keys[2].draw}\), s3 \(draw {keys[3].draw}\)"):
        trainer.run()
    assert sampler.start == 0


def test_nothing_changes_where_all_is_finite(tmp_path):
    free = make(batches([1.0, 2.0, 3.0]))
    free[0].run()
    guarded, network, _ = make(batches([1.0, 2.0, 3.0]), folder=tmp_path)
    norms = []
    guarded.add_event_handler(Events.ITERATION_COMPLETED, lambda e: norms.append(float(e.state.gradient_norm)))
    guarded.run()
    assert torch.equal(weights(network), weights(free[1]))
    assert len(set(norms)) == 3
    assert not (tmp_path / "metrics.jsonl").exists()
    assert not guarded.optimizer._optimizer_step_pre_hooks


def test_the_norm_is_that_of_before_clipping():
    norms = {}
    for clip in (None, 1e-3):
        trainer, _, _ = make(batches([3.0]), clip=clip)
        trainer.run()
        norms[clip] = float(trainer.state.gradient_norm)
    assert norms[None] == pytest.approx(norms[1e-3])


class Scaled(SupervisedTrainer):
    """AMP's way of stepping with torch's own scaler, which works on a CPU, too."""

    def _iteration(self, engine, batch):
        image, label = engine.prepare_batch(batch, engine.state.device, engine.non_blocking)
        loss = engine.loss_function(engine.network(image), label)
        engine.state.output = {"image": image, "label": label, "loss": loss}
        engine.optimizer.zero_grad()
        engine.scaler.scale(loss).backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        engine.scaler.step(engine.optimizer)
        engine.scaler.update()
        return engine.state.output


def scaled(values, patience=10, scale=2.0**10, backoff=0.5, fused=False, clip=None, folder=None):
    torch.manual_seed(0)
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, fused=fused)
    guard = NanGuard(optimizer, folder, patience=patience)
    trainer = Scaled(
        torch.device("cpu"), 1, batches(values), network, optimizer, torch.nn.MSELoss(),
        train_handlers=[guard] if clip is None else [ClipGradients(optimizer, clip), guard], decollate=False,
    )  # fmt: skip

    @trainer.on(Events.STARTED)  # MONAI makes one for CUDA when it starts, or none
    def make_scaler(engine):
        engine.scaler = torch.amp.GradScaler("cpu", init_scale=scale, backoff_factor=backoff)

    return trainer, network, guard


@pytest.mark.parametrize("fused", [False, True])
def test_overflows_now_and_then_are_left_to_the_scaler(tmp_path, fused):
    values = [1.0, HUGE, HUGE, 1.0, HUGE, HUGE, 1.0]
    trainer, network, guard = scaled(values, patience=3, fused=fused, folder=tmp_path)
    trainer.run()
    (row,) = rows(tmp_path)  # once, with the first
    assert (row["level"], row["iteration"], row["title"]) == ("warning", 2, "The loss is not finite")
    assert "s2, s3" in row["text"]
    assert torch.isfinite(weights(network)).all()
    assert guard.state_dict()["overflows"] == 0
    assert trainer.scaler.get_scale() == 2.0**6


def test_an_image_that_no_scale_mends_stops_it_at_once():
    trainer, network, _ = scaled([1.0, NAN, 1.0])
    with pytest.raises(TrainingError, match=r"iteration 2: .* an image of s3"):
        trainer.run()
    assert torch.isfinite(weights(network)).all()


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_the_norm_under_amp_is_that_of_the_gradient_fused_or_not(clip):
    norms, after = [], []
    for fused in (False, True):
        trainer, network, _ = scaled([3.0], fused=fused, clip=clip)
        trainer.run()
        norms.append(float(trainer.state.gradient_norm))
        after.append(weights(network))
    plain, network, _ = make(batches([3.0]), clip=clip)
    plain.run()
    assert norms == pytest.approx([float(plain.state.gradient_norm)] * 2, rel=1e-5)
    for one in after:
        torch.testing.assert_close(one, weights(network))


@pytest.mark.parametrize("fused", [False, True])
def test_as_many_in_a_row_as_it_has_patience_for_stop_it(fused):
    trainer, network, _ = scaled([1.0, HUGE, HUGE, HUGE, 1.0], patience=3, fused=fused)
    with pytest.raises(TrainingError, match=r"iteration 4.*not finite: in each of the last 3 batches"):
        trainer.run()
    assert torch.isfinite(weights(network)).all()


def test_a_scale_under_which_only_the_gradient_overflows_counts():
    trainer, _, _ = scaled([1.0] * 6, patience=4, scale=3e38, backoff=0.999)
    with pytest.raises(TrainingError, match="iteration 4"):
        trainer.run()


def explode(tmp_path, values, **options):
    """Losses of these sizes, through a loss that says what it is told."""
    told = iter(values)

    def loss(prediction, label):
        return prediction.sum() * 0 + next(told)

    trainer, _, guard = make(batches([1.0] * len(values)), loss, folder=tmp_path, **options)
    return trainer, guard


def test_an_exploding_loss_is_said_once(tmp_path, caplog):
    trainer, _ = explode(tmp_path, [1.0] * 30 + [20.0] * 40)
    trainer.run()
    (row,) = rows(tmp_path)
    assert (row["level"], row["iteration"], row["title"]) == ("warning", 35, "The loss explodes")
    assert "over 10 times what it was (20 now, 1 before)" in row["text"]
    assert caplog.text.count("over 10 times") == 1


def test_single_peaks_and_first_batches_are_no_explosion(tmp_path):
    trainer, _ = explode(tmp_path, [100.0] * 3 + [1.0] * 30 + [50.0, 60.0, 1.0] * 10 + [5.0] * 10)
    trainer.run()
    assert not (tmp_path / "metrics.jsonl").exists()


def test_it_explodes_at_the_same_batch_after_a_resume(tmp_path):
    trainer, guard = explode(tmp_path, [1.0] * 30 + [20.0] * 3)
    trainer.run()
    kept = guard.state_dict()
    assert kept["high"] == 3
    assert trainer.state.stateful["nan_guard"] is guard
    trainer, guard = explode(tmp_path, [20.0] * 4)
    guard.load_state_dict(json.loads(json.dumps(kept)))
    trainer.run()
    (row,) = rows(tmp_path)
    assert row["iteration"] == 2


@pytest.mark.parametrize("wrong", [{"patience": 0}, {"factor": 1.0}, {"factor": NAN}, {"in_a_row": 0}])
def test_limits_that_are_none(wrong):
    with pytest.raises(ConfigError, match="nan_guard: patience and in_a_row must be 1 or more"):
        NanGuard(torch.optim.SGD([torch.zeros(1)], lr=1), **wrong)
