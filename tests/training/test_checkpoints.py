"""A trainer that stops after an epoch and goes on ends where an undisturbed one ends, to the last bit."""

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import MeanSquaredError, ValidationHandler, from_engine

from medseg.errors import ConfigError, OutputError, WeightsError
from medseg.training import Checkpoints, Resume
from medseg.training.step import accumulating

DATA = [
    {"image": torch.randn(4, 2, generator=torch.Generator().manual_seed(i)), "label": torch.full((4, 1), float(i))}
    for i in range(3)
]


class StopNow(Exception):
    pass


def run(folder, epochs=4, stop_after=None, every=2, scores=None):
    torch.manual_seed(0)
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DATA,
        network=network,
        key_val_metric={"mse": MeanSquaredError(output_transform=from_engine(["pred", "label"]))},
        metric_cmp_fn=lambda new, best: new < best,
        decollate=False,
    )
    handlers = [
        ValidationHandler(1, evaluator),
        Checkpoints(
            folder / "checkpoints", network, optimizer, folder / "models" / "model.pt", scheduler, evaluator, every
        ),
    ]
    trainer = SupervisedTrainer(
        torch.device("cpu"),
        epochs,
        DATA,
        network,
        optimizer,
        torch.nn.MSELoss(),
        train_handlers=handlers,
        decollate=False,
    )

    @trainer.on(Events.EPOCH_COMPLETED)
    def step(engine):
        if scores is not None:
            scores.append((engine.state.epoch, evaluator.state.best_metric, optimizer.param_groups[0]["lr"]))
        if engine.state.epoch == stop_after:
            raise StopNow

    @trainer.on(Events.EPOCH_STARTED)
    def schedule(engine):
        if engine.state.epoch > 1:
            scheduler.step()

    trainer.run()
    return network, evaluator


def test_going_on_ends_where_an_undisturbed_run_ends(tmp_path):
    undisturbed, scores = [], []
    wanted, wanted_evaluator = run(tmp_path / "whole", scores=undisturbed)
    with pytest.raises(StopNow):
        run(tmp_path / "parts", stop_after=2, scores=scores)
    network, evaluator = run(tmp_path / "parts", scores=scores)
    assert torch.equal(network.weight, wanted.weight)
    assert torch.equal(network.bias, wanted.bias)
    assert scores == undisturbed
    assert evaluator.state.best_metric == wanted_evaluator.state.best_metric


def test_last_best_and_every_second_epoch_are_kept(tmp_path):
    run(tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "best.pt",
        "epoch_0002.pt",
        "epoch_0004.pt",
        "last.pt",
        "previous.pt",
    ]
    last = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)
    assert set(last) == {"network", "optimizer", "lr_scheduler", "trainer", "best", "epoch_due", "rng", "stateful"}


def test_the_model_is_the_best_one_and_not_the_last(tmp_path):
    network, evaluator = run(tmp_path, epochs=6)
    best = evaluator.state.best_metric_epoch
    model = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    kept = torch.load(tmp_path / "checkpoints" / "best.pt", weights_only=True)
    assert kept["best"][1] == best
    assert torch.equal(kept["network"]["weight"], model["weight"])
    at_best = (
        torch.load(tmp_path / "checkpoints" / f"epoch_{best:04d}.pt", weights_only=True) if best % 2 == 0 else None
    )
    if at_best:
        assert torch.equal(at_best["network"]["weight"], model["weight"])
    assert best == 6 or not torch.equal(network.weight, model["weight"])


def test_no_checkpoint_stays_where_none_was_asked_for(tmp_path):
    run(tmp_path, every=0)
    assert not list((tmp_path / "checkpoints").glob("epoch_*"))


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def test_of_a_damaged_checkpoint_the_one_before_is_taken(tmp_path, caplog):
    wanted, _ = run(tmp_path / "whole")
    with pytest.raises(StopNow):
        run(tmp_path / "parts", stop_after=2)
    damage(tmp_path / "parts" / "checkpoints" / "last.pt")
    network, _ = run(tmp_path / "parts")
    assert torch.equal(network.weight, wanted.weight)
    (line,) = [record.message for record in caplog.records if "is damaged" in record.message]
    assert "last.pt" in line
    assert "previous.pt" in line


def test_where_all_checkpoints_are_damaged_the_newest_names_itself_and_the_way_out(tmp_path):
    with pytest.raises(StopNow):
        run(tmp_path, stop_after=1)
    for path in (tmp_path / "checkpoints").iterdir():
        damage(path)
    with pytest.raises(WeightsError, match=r"last\.pt: the checkpoint is damaged.*--fresh"):
        run(tmp_path)


def test_a_full_disk_leaves_the_checkpoint_before_whole(tmp_path, monkeypatch):
    with pytest.raises(StopNow):
        run(tmp_path, stop_after=2)
    before = (tmp_path / "checkpoints" / "last.pt").read_bytes()

    def full(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        run(tmp_path)
    assert (tmp_path / "checkpoints" / "last.pt").read_bytes() == before
    assert not list(tmp_path.rglob("*.partial*"))


class Scaler:
    """What AMP's scaler is to a checkpoint."""

    def __init__(self, scale, enabled=True):
        self.scale, self.enabled = scale, enabled

    def is_enabled(self):
        return self.enabled

    def state_dict(self):
        return {"scale": self.scale} if self.enabled else {}

    def load_state_dict(self, state):
        self.scale = state["scale"]

    def get_scale(self):
        return self.scale


def scaled(folder, scaler):
    """A trainer of no epoch more, with a scaler, as AMP makes it when the trainer starts."""
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(network.parameters())
    handler = Checkpoints(folder / "checkpoints", network, optimizer, folder / "model.pt")
    trainer = SupervisedTrainer(torch.device("cpu"), 1, DATA, network, optimizer, torch.nn.MSELoss(), decollate=False)
    trainer.scaler = scaler
    return handler, trainer


def test_the_scale_of_amp_goes_on_where_it_was(tmp_path):
    handler, trainer = scaled(tmp_path, Scaler(512.0))
    handler.save(trainer)
    saved = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)
    assert saved["scaler"] == {"scale": 512.0}
    later = Scaler(65536.0)
    handler, trainer = scaled(tmp_path, later)
    handler.load(trainer)
    assert later.scale == 512.0


@pytest.mark.parametrize("first", [None, Scaler(1.0, enabled=False), Scaler(512.0)])
def test_a_run_moves_between_devices_with_and_without_a_scale(tmp_path, first):
    handler, trainer = scaled(tmp_path, first)
    handler.save(trainer)
    for scaler in (None, Scaler(65536.0, enabled=False), Scaler(65536.0)):
        handler, trainer = scaled(tmp_path, scaler)
        handler.load(trainer)
        if scaler is not None:
            kept = first is not None and first.enabled and scaler.enabled
            assert scaler.scale == (512.0 if kept else 65536.0)


def test_the_scaler_of_torch_is_taken(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    handler, trainer = scaled(tmp_path, scaler)
    handler.save(trainer)
    other = torch.amp.GradScaler("cpu")
    handler, trainer = scaled(tmp_path, other)
    handler.load(trainer)
    assert other.get_scale() == 1024.0


def handler(folder, network, **options):
    optimizer = torch.optim.AdamW(network.parameters())
    checkpoints = Checkpoints(folder / "checkpoints", network, optimizer, folder / "models" / "model.pt", **options)
    trainer = SupervisedTrainer(
        torch.device("cpu"),
        4,
        DATA,
        network,
        optimizer,
        torch.nn.MSELoss(),
        train_handlers=[Resume(), checkpoints],
        decollate=False,
    )
    return checkpoints, trainer


def test_only_the_newest_stay(tmp_path):
    handler(tmp_path, torch.nn.Linear(2, 1), every=1, keep=2)[1].run()
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("epoch_*")) == [
        "epoch_0003.pt",
        "epoch_0004.pt",
    ]


def test_a_checkpoint_of_another_network_is_refused_by_name(tmp_path):
    handler(tmp_path, torch.nn.Linear(2, 1))[1].run()
    other = torch.nn.Linear(2, 1, bias=False)
    with pytest.raises(WeightsError, match=r"its weights are of another network: 'bias' is not here"):
        handler(tmp_path, other)[1].run()


def test_a_backup_is_told_of_every_file(tmp_path):
    sent = []

    class Backup:
        def send(self, path):
            assert path.is_file()
            sent.append(path.name)

    handler(tmp_path, torch.nn.Linear(2, 1), every=4, every_minutes=None, backup=Backup())[1].run()
    epoch = ["last.pt", "best.pt", "model.pt", "last.pt"]
    assert sent == epoch * 3 + ["last.pt", "best.pt", "model.pt", "epoch_0004.pt", "last.pt"]


class Counter:
    def __init__(self):
        self.count = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_a_handler_that_is_kept_goes_on_where_it_was_and_a_new_one_is_left_alone(tmp_path):
    checkpoints, trainer = handler(tmp_path, torch.nn.Linear(2, 1))
    trainer.state.stateful = {"one": Counter()}
    trainer.state.stateful["one"].count = 7
    checkpoints.save(trainer)
    checkpoints, trainer = handler(tmp_path, torch.nn.Linear(2, 1))
    trainer.state.stateful = {"one": Counter(), "two": Counter()}
    checkpoints.load(trainer)
    assert [one.count for one in trainer.state.stateful.values()] == [7, 0]


def test_gradients_that_are_not_used_yet_are_kept(tmp_path):
    network = torch.nn.Linear(2, 1)
    checkpoints, trainer = handler(tmp_path, network)
    trainer.accumulation_steps, trainer.state.iteration = 3, 2
    assert accumulating(trainer)
    network(torch.ones(1, 2)).sum().backward()
    checkpoints.save_iteration(trainer)
    later = torch.nn.Linear(2, 1)
    checkpoints, trainer = handler(tmp_path, later)
    checkpoints.load(trainer)
    assert torch.equal(later.weight.grad, network.weight.grad)
    trainer.state.iteration = 3  # an epoch of three ends with a step
    assert not accumulating(trainer)


@pytest.mark.parametrize(
    ("before", "now", "factor"), [(512.0, None, 1 / 512), (None, 256.0, 256.0), (512.0, 256.0, 0.5)]
)
def test_gradients_go_on_in_the_scale_that_amp_has_then(tmp_path, before, now, factor):
    network, later = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    checkpoints, trainer = handler(tmp_path, network)
    trainer.accumulation_steps, trainer.state.iteration = 3, 2
    trainer.scaler = None if before is None else Scaler(before)
    network(torch.ones(1, 2)).sum().backward()
    checkpoints.save_iteration(trainer)
    checkpoints, trainer = handler(tmp_path, later)
    trainer.scaler = None if now is None else Keeps(now)
    checkpoints.load(trainer)
    torch.testing.assert_close(later.weight.grad, network.weight.grad * factor)


class Keeps(Scaler):
    """A scaler whose scale is given by hand."""

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize("minutes", [None, 1000])
def test_before_an_epoch_is_validated_a_checkpoint_lies_there(tmp_path, minutes):
    checkpoints, trainer = handler(tmp_path, torch.nn.Linear(2, 1), every_minutes=minutes)
    found = []
    look = Events.EPOCH_COMPLETED(once=1)
    trainer.add_event_handler(look, lambda: found.append(checkpoints.saved))
    trainer._event_handlers[Events.EPOCH_COMPLETED].insert(0, trainer._event_handlers[Events.EPOCH_COMPLETED].pop())
    trainer.run()
    assert found == [3]


def test_an_epoch_of_another_length_is_begun_anew(tmp_path, caplog):
    checkpoints, trainer = handler(tmp_path, torch.nn.Linear(2, 1))
    trainer.state.iteration = 5  # of three each
    checkpoints.save_iteration(trainer)
    checkpoints, trainer = handler(tmp_path, torch.nn.Linear(2, 1))
    trainer.state.epoch_length = 10
    checkpoints.load(trainer)
    assert (trainer.state.epoch, trainer.state.iteration) == (1, 10)
    assert "An epoch had 3 iterations and has 10 now" in caplog.text


@pytest.mark.parametrize("name", ["every", "keep", "every_minutes"])
def test_a_number_below_zero_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=f"{name}: it must be 0 or more"):
        handler(tmp_path, torch.nn.Linear(2, 1), **{name: -1})


def test_weights_lie_in_memory_as_they_lay(tmp_path):
    network = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    checkpoints, trainer = handler(tmp_path, network)
    checkpoints.save(trainer)
    later = torch.nn.Conv2d(3, 4, 3)
    weight = later.weight
    checkpoints, trainer = handler(tmp_path, later)
    checkpoints.load(trainer)
    assert later.weight is weight
    assert weight.stride() == network.weight.stride() != torch.empty(4, 3, 3, 3).stride()
    assert torch.equal(weight, network.weight)


def test_checkpoints_that_stay_are_called_after_the_scores_of_their_epoch(tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def score(engine):
        epoch = engine.state.epoch
        engine.state.scores = {"loss": 1 / epoch, "mean_dice": epoch / 8} if epoch != 4 else {}

    def trainer(epochs, named=True):
        location, model = tmp_path, tmp_path / "model.pt"
        checkpoints = Checkpoints(location, network, optimizer, model, every=2, keep=2, scores_in_filenames=named)
        found = SupervisedTrainer(
            torch.device("cpu"), epochs, DATA, network, optimizer, torch.nn.MSELoss(), decollate=False
        )
        found.add_event_handler(Events.EPOCH_COMPLETED, score)
        checkpoints.attach(found)
        return found

    def names():
        return sorted(path.name for path in tmp_path.glob("epoch_*"))

    trainer(2).run()
    assert names() == ["epoch_0002_loss0.500_dice0.250.pt"]
    trainer(6).run()
    assert names() == ["epoch_0004.pt", "epoch_0006_loss0.167_dice0.750.pt"]
    for last in ("last.pt", "previous.pt"):
        (tmp_path / last).unlink()
    further = trainer(8, named=False)
    further.add_event_handler(Events.STARTED, lambda engine: seen.append(engine.state.epoch))
    seen = []
    further.run()
    assert seen == [6]
    assert names() == ["epoch_0006_loss0.167_dice0.750.pt", "epoch_0008.pt"]
