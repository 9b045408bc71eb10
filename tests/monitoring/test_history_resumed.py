"""A run that was killed and goes on records what an uninterrupted one does, and nothing twice."""

import contextlib
import itertools
import json

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler, from_engine

from medseg.labels import LabelMap
from medseg.losses import DiceCELoss
from medseg.metrics import PixelF1, VolumeDice
from medseg.monitoring import Histograms, History

pytestmark = pytest.mark.slow

LABELS = LabelMap(["liver", "spleen"])
LENGTH, EPOCHS = 5, 3
TIMES = {"time", "samples_per_second", "seconds_left", "data_wait", "train_seconds", "seconds"}


class Killed(Exception):
    pass


def batches(first):
    """Without end: what comes after so many batches."""
    made = torch.Generator().manual_seed(1)
    images = torch.randn(LENGTH, 2, 1, 6, 6, generator=made)
    labels = torch.randint(0, 3, (LENGTH, 2, 1, 6, 6), generator=made)
    for number in itertools.count(first):
        yield {"image": images[number % LENGTH], "label": labels[number % LENGTH]}


def train(folder, start=None, stop=None, every=2):
    """Train from a checkpoint until after batch `stop`; gives the checkpoint of each batch."""
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 3, 3, padding=1)
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        [{"image": torch.ones(1, 1, 6, 6), "label": torch.ones(1, 1, 6, 6, dtype=torch.int64)}],
        network,
        inferer=lambda inputs, net: net(inputs).argmax(dim=1, keepdim=True),
        key_val_metric={"val_mean_dice": VolumeDice(LABELS, from_engine(["pred", "label"]))},
        additional_metrics={"val_f1": PixelF1(LABELS, from_engine(["pred", "label"]))},
    )
    trainer = SupervisedTrainer(
        torch.device("cpu"), EPOCHS, batches(start["iteration"] if start else 0), network,
        torch.optim.SGD(network.parameters(), lr=0.1), DiceCELoss(include_background=False, batch=True),
        epoch_length=LENGTH, decollate=False, accumulation_steps=2,
        train_handlers=[ValidationHandler(1, evaluator), History(folder, evaluator, every), Histograms(folder, 4)],
    )  # fmt: skip
    saved = {}

    def save(engine):
        kept = {name: part.state_dict() for name, part in engine.state.stateful.items()}
        saved[engine.state.iteration] = {
            "iteration": engine.state.iteration,
            "network": {name: value.clone() for name, value in network.state_dict().items()},
            "best": (evaluator.state.best_metric, evaluator.state.best_metric_epoch),
            "stateful": json.loads(json.dumps(kept)),
        }
        if engine.state.iteration == stop:
            raise Killed

    def load(engine):
        network.load_state_dict(start["network"])
        evaluator.state.best_metric, evaluator.state.best_metric_epoch = start["best"]
        for name, part in engine.state.stateful.items():
            part.load_state_dict(start["stateful"][name])

    trainer.add_event_handler(Events.ITERATION_COMPLETED, save)
    if start:
        trainer.load_state_dict({"iteration": start["iteration"], "max_epochs": EPOCHS, "epoch_length": LENGTH})
        trainer.add_event_handler(Events.STARTED, load)
    with contextlib.suppress(Killed):
        trainer.run()
    return saved


def rows(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return folder


@pytest.mark.parametrize(("saved_at", "killed_at"), [(2, 3), (4, 4), (2, 8), (7, 14), (9, 15)])
def test_rows_are_those_of_an_uninterrupted_run(tmp_path, whole, saved_at, killed_at):
    saved = train(tmp_path, stop=killed_at)
    train(tmp_path, start=saved[saved_at])
    begins = [row for row in rows(tmp_path) if row["kind"] == "begin"]
    assert [(row["resumed"], row["iteration"]) for row in begins] == [(False, 0), (True, saved_at)]
    assert [row for row in rows(tmp_path) if row["kind"] != "begin"] == rows(whole)[1:]
    ours, wanted = (json.loads((one / "training_history.json").read_text()) for one in (tmp_path, whole))
    for name in ("epoch", "loss", "dice_loss", "ce_loss", "lr", "grad_norm", "mean_dice", "dice", "best_dice"):
        assert ours[name] == wanted[name], name


def test_an_uninterrupted_run_has_every_series(whole):
    found = rows(whole)
    by_kind = {kind: [row for row in found if row["kind"] == kind] for kind in ("batch", "epoch", "validation")}
    assert [row["iteration"] for row in by_kind["batch"]] == [2, 4, 6, 8, 10, 12, 14]
    for row in (*by_kind["batch"], *by_kind["epoch"]):
        assert row["loss"] == pytest.approx(row["dice_loss"] + row["ce_loss"], rel=1e-6)
        assert row["lr"] == 0.1
        assert row["grad_norm"] > 0
    for row in by_kind["validation"]:
        assert set(row["f1"]) == set(row["dice"]) == {"liver", "spleen"}
        assert row["mean_f1"] == row["f1"]["liver"] == pytest.approx(row["dice"]["liver"])
    assert [row["iteration"] for row in found if row["kind"] == "histogram"] == [4, 9, 12]  # steps


def test_a_checkpoint_without_a_history_begins_the_epochs_sums_anew(tmp_path):
    saved = train(tmp_path, stop=8)
    start = {**saved[7], "stateful": {**saved[7]["stateful"], "history": saved[2]["stateful"]["history"]}}
    train(tmp_path, start=start)
    assert [row["epoch"] for row in rows(tmp_path) if row["kind"] == "epoch"] == [1, 2, 3]
