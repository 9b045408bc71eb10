import json
import math

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler, from_engine

from medseg.labels import LabelMap
from medseg.metrics import VolumeDice
from medseg.monitoring import History

LABELS = LabelMap(["liver", "spleen"])
DATA = [{"image": torch.rand(4, 1, 2), "label": torch.rand(4, 1, 2)} for _ in range(3)]
VOLUMES = [{"image": torch.zeros(1, 1, 2), "label": torch.tensor([[[1, 1]]])}]


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.scale


def run(folder, epochs=2, every=2, loss=None, interval=1, start=0, pictures=(), decollate=False, said=None):
    torch.manual_seed(0)
    network = Net()
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        VOLUMES,
        network,
        inferer=lambda inputs, net: torch.tensor([[[1, 0]]]),
        key_val_metric={"val_mean_dice": VolumeDice(LABELS, from_engine(["pred", "label"]))},
    )
    losses = []
    base = loss or torch.nn.MSELoss()

    def record(prediction, truth):
        value = base(prediction, truth)
        losses.append(float(value.detach()))
        return value

    trainer = SupervisedTrainer(
        torch.device("cpu"),
        epochs,
        DATA,
        network,
        torch.optim.SGD(network.parameters(), lr=0.25),
        record,
        train_handlers=[ValidationHandler(interval, evaluator), History(folder, evaluator, every)],
        decollate=decollate,
    )
    if said is not None:
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: said.append(engine.state.scores))
    if pictures:
        evaluator.add_event_handler(Events.COMPLETED, draw, folder)
        evaluator.state.previews = [{**one, "epoch": 0} for one in pictures]
    if start:
        trainer.load_state_dict({"epoch": start, "max_epochs": epochs, "epoch_length": 3})
    trainer.run()
    return losses


def draw(engine, folder):
    epoch = engine.state.epoch
    path = folder / "previews" / f"{epoch}.png"
    engine.state.previews = [{"epoch": epoch, "case": "a", "file": str(path), "caption": "a, slice 3"}]


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_rows_have_values_epoch_and_iteration(tmp_path):
    losses = run(tmp_path)
    begin, *found = rows(tmp_path)
    assert begin.items() >= {
        "kind": "begin", "resumed": False, "max_epochs": 2, "epoch_length": 3, "batch_size": None,
        "accumulation_steps": 1, "device": "cpu", "epoch": 1, "iteration": 0,
    }.items()  # fmt: skip
    assert [(row["kind"], row["epoch"], row["iteration"]) for row in found] == [
        ("batch", 1, 2),
        ("epoch", 1, 3),
        ("validation", 1, 3),
        ("batch", 2, 4),
        ("batch", 2, 6),
        ("epoch", 2, 6),
        ("validation", 2, 6),
    ]
    assert found[0]["loss"] == pytest.approx(losses[1])
    assert found[1]["loss"] == pytest.approx(sum(losses[:3]) / 3)
    assert found[0]["lr"] == 0.25
    assert found[1]["samples_per_second"] > 0


def test_dice_comes_by_name_with_the_best_so_far(tmp_path):
    run(tmp_path)
    validation = [row for row in rows(tmp_path) if row["kind"] == "validation"][-1]
    assert validation["dice"] == {"liver": pytest.approx(2 / 3), "spleen": None}
    assert validation["mean_dice"] == pytest.approx(2 / 3)
    assert (validation["best_dice"], validation["best_epoch"]) == (pytest.approx(2 / 3), 1)


def test_the_history_holds_a_list_for_each_series(tmp_path):
    losses = run(tmp_path)
    history = json.loads((tmp_path / "training_history.json").read_text())
    assert history["epoch"] == [1, 2]
    assert history["loss"] == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / 3])
    assert history["lr"] == [0.25, 0.25]
    assert history["dice"] == {"liver": pytest.approx([2 / 3, 2 / 3]), "spleen": [None, None]}
    assert (history["best_epoch"], history["max_epochs"]) == (1, 2)


def test_an_epoch_without_validation_has_no_score_of_the_one_before(tmp_path):
    run(tmp_path, epochs=3, interval=2)
    history = json.loads((tmp_path / "training_history.json").read_text())
    assert history["mean_dice"] == [None, pytest.approx(2 / 3), None]


def test_a_nan_loss_is_null_and_the_file_stays_json(tmp_path):
    run(tmp_path, every=1, loss=lambda prediction, truth: (prediction * math.nan).mean())
    assert all(row["loss"] is None for row in rows(tmp_path) if row["kind"] in ("batch", "epoch"))


def test_resuming_keeps_the_earlier_epochs(tmp_path):
    run(tmp_path, epochs=2)
    run(tmp_path, epochs=4, start=2)
    history = json.loads((tmp_path / "training_history.json").read_text())
    assert history["epoch"] == [1, 2, 3, 4]
    assert len([row for row in rows(tmp_path) if row["kind"] == "epoch"]) == 4


def test_resuming_from_an_earlier_epoch_drops_the_later_ones(tmp_path):
    run(tmp_path, epochs=3)
    run(tmp_path, epochs=3, start=1)
    history = json.loads((tmp_path / "training_history.json").read_text())
    assert history["epoch"] == [1, 2, 3]


def test_an_image_gets_a_row_beside_its_epoch(tmp_path):
    first = {"case": "a", "file": str(tmp_path / "previews" / "0.png"), "caption": "a, before training"}
    run(tmp_path, pictures=[first])
    run(tmp_path, epochs=3, start=2, pictures=[first])
    images = [row for row in rows(tmp_path) if row["kind"] == "image"]
    assert [(row["epoch"], row["iteration"], row["file"]) for row in images] == [
        (0, 0, "previews/0.png"),
        (1, 3, "previews/1.png"),
        (2, 6, "previews/2.png"),
        (0, 0, "previews/0.png"),
        (3, 9, "previews/3.png"),
    ]
    assert images[1]["caption"] == "a, slice 3"


def test_a_loss_without_parts_has_none_and_a_norm_is_recorded(tmp_path):
    run(tmp_path)
    measured = [row for row in rows(tmp_path) if row["kind"] in ("batch", "epoch")]
    assert not any("dice_loss" in row or "ce_loss" in row for row in measured)
    assert all(row["grad_norm"] > 0 for row in measured)


def test_batches_and_epochs_have_speed_waiting_and_time_left(tmp_path):
    run(tmp_path, epochs=3, every=1)
    measured = [row for row in rows(tmp_path) if row["kind"] in ("batch", "epoch")]
    for row in measured:
        assert row["samples_per_second"] > 0
        assert 0 <= row["data_wait"] <= 1
    left = [row["seconds_left"] for row in measured if row["kind"] == "epoch"]
    assert left[0] > 0
    assert left[-1] == 0
    assert all(row["seconds"] >= 0 for row in rows(tmp_path) if row["kind"] == "validation")


def test_decollated_outputs_are_counted_too(tmp_path):
    losses = run(tmp_path, decollate=True)
    epoch = next(row for row in rows(tmp_path) if row["kind"] == "epoch")
    assert epoch["loss"] == pytest.approx(sum(losses[:3]) / 3)
    assert epoch["samples_per_second"] > 0


def test_the_folder_is_made_where_there_is_no_run(tmp_path):
    run(tmp_path / "deep" / "run")
    assert {row["kind"] for row in rows(tmp_path / "deep" / "run")} == {"begin", "batch", "epoch", "validation"}


def test_later_handlers_see_the_scores_of_an_epoch(tmp_path):
    said = []
    losses = run(tmp_path, epochs=2, interval=2, said=said)
    assert said[0] == {"loss": pytest.approx(sum(losses[:3]) / 3, abs=1e-6)}
    assert said[1] == {"loss": pytest.approx(sum(losses[3:]) / 3, abs=1e-6), "mean_dice": pytest.approx(2 / 3)}
    run(tmp_path / "nan", epochs=1, loss=lambda prediction, truth: (prediction * math.nan).mean(), said=said)
    assert said[2] == {"mean_dice": pytest.approx(2 / 3)}  # what is no number is no score
