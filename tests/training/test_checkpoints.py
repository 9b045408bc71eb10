"""A trainer that stops after an epoch and goes on ends where an undisturbed one ends, to the last bit."""

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import MeanSquaredError, ValidationHandler, from_engine

from medseg.errors import OutputError, WeightsError
from medseg.training import Checkpoints

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
    assert set(last) == {"network", "optimizer", "lr_scheduler", "trainer", "best", "epoch_due", "rng", "kept"}


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
    with pytest.raises(WeightsError, match=r"last\.pt: must be a whole checkpoint.*resume=false"):
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
