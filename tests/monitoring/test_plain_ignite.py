"""The handlers at a plain Ignite engine, which has no rank, no network, no optimizer and no data loader of its own."""

import pytest
import torch
from ignite.engine import Engine, Events

from medseg.labels import LabelMap
from medseg.monitoring import Histograms, History, Monitor, Previews, System
from medseg.runs import Run


@pytest.mark.parametrize("output", [dict, float, torch.Tensor])
def test_a_plain_trainer_is_recorded(tmp_path, output):
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)

    def step(engine, batch):
        images, labels = batch
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(network(images), labels)
        loss.backward()
        optimizer.step()
        return {dict: {"loss": loss}, float: loss.item(), torch.Tensor: loss}[output]

    trainer = Engine(step)
    History(tmp_path, log_every_n_batches=2, optimizer=optimizer).attach(trainer)
    Histograms(tmp_path, 2, network, optimizer).attach(trainer)
    System(tmp_path, every_n_seconds=1e6).attach(trainer)
    Monitor(tmp_path, {"backend": "off"}).attach(trainer)
    data = [(torch.rand(3, 2), torch.rand(3, 1)) for _ in range(4)]
    trainer.run(data, max_epochs=2)

    run = Run(tmp_path)
    assert run.state == "finished"
    assert [row["iteration"] for row in run.rows_of("batch")] == [2, 4, 6, 8]
    assert all(row["loss"] > 0 and row["lr"] == 0.5 and row["grad_norm"] > 0 for row in run.rows_of("batch"))
    assert all(row["samples_per_second"] > 0 for row in run.history)
    assert len(run.history) == 2
    assert len(run.rows_of("histogram")) == 4
    assert len(run.rows_of("system")) == 1


@pytest.mark.parametrize(
    ("name", "values", "mean", "by_structure"),
    [
        ("dice", [0.2, 0.6, 0.4], [0.2, 0.6, 0.4], {}),
        ("val_Dice", [[0.1, 0.3], [0.5, 0.7], [0.3, 0.5]], [0.2, 0.6, 0.4], {"liver": 0.5, "spleen": 0.7}),
        (
            "dice_per_class",
            [[0.9, 0.1, 0.3], [0.9, 0.5, 0.7], [0.9, 0.3, 0.5]],
            [0.2, 0.6, 0.4],
            {"liver": 0.5, "spleen": 0.7},
        ),
    ],
)
def test_a_plain_evaluator_is_recorded_at_each_validation(tmp_path, name, values, mean, by_structure):
    trainer, evaluator = Engine(lambda engine, batch: 0.5), Engine(lambda engine, batch: None)
    left = iter(values)

    @evaluator.on(Events.COMPLETED)
    def measure(engine):
        value = next(left)
        engine.state.metrics = {name: torch.tensor(value), "accuracy": 0.75, "confusion": torch.eye(2), "text": "x"}

    trainer.add_event_handler(Events.EPOCH_COMPLETED(every=2), lambda: evaluator.run([0]))
    History(tmp_path, evaluator, structures=("liver", "spleen")).attach(trainer)
    trainer.run([0, 1], max_epochs=6)
    rows = Run(tmp_path).rows_of("validation")
    assert [row["epoch"] for row in rows] == [2, 4, 6]
    assert [row["best_epoch"] for row in rows] == [2, 4, 4]
    assert [row["mean_accuracy"] for row in rows] == [0.75] * 3
    assert [row["mean_dice"] for row in rows] == pytest.approx(mean)
    assert rows[1]["dice"] == pytest.approx(by_structure)
    assert not {"confusion", "mean_confusion", "text"} & set(rows[0])


def test_previews_attach_to_a_plain_evaluator(tmp_path):
    evaluator = Engine(lambda engine, batch: [])
    Previews(tmp_path, LabelMap(["liver"]), draw=lambda *arguments: None).attach(evaluator)
    evaluator.run([[]])
    assert not list(tmp_path.glob("*.png"))


def test_a_tracker_that_is_not_installed_is_one_line(tmp_path, monkeypatch, caplog):
    import importlib.util

    caplog.set_level("INFO", "medseg")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    trainer = Engine(lambda engine, batch: None)
    Monitor(tmp_path, {"backend": "trackio"}).attach(trainer)
    trainer.run([0, 1], max_epochs=1)
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("medseg")]
    assert messages == ["The run is not shown live: trackio is not installed (pip install 'medseg[monitor]')"]
    assert not (tmp_path / "monitor" / "state.json").exists()
