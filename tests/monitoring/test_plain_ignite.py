"""The handlers at a plain Ignite engine, which has no rank, no network, no optimizer and no data loader of its own."""

import pytest
import torch
from ignite.engine import Engine

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
