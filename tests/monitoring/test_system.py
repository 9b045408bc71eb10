import json
import logging

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from medseg.monitoring import System
from medseg.monitoring.probes import Sample

GB = 10**9
DATA = [{"image": torch.rand(4, 1, 2), "label": torch.rand(4, 1, 2)} for _ in range(10)]


class Clock:
    """Ten seconds a look."""

    now = 0.0

    def __call__(self):
        self.now += 10
        return self.now


def sample(disk_free=100 * GB):
    return Sample(cpu=0.5, ram_used=GB, ram_free=GB, ram_process=GB, disk_free=disk_free)


def run(folder, probe=sample, epochs=1, validate=False, **options):
    network = torch.nn.Conv1d(1, 1, 1)
    evaluator = SupervisedEvaluator(torch.device("cpu"), DATA[:5], network)
    system = System(folder, validator=evaluator, probe=probe, clock=Clock(), **options)
    trainer = SupervisedTrainer(
        torch.device("cpu"), epochs, DATA, network, torch.optim.SGD(network.parameters(), lr=0.1), torch.nn.MSELoss(),
        train_handlers=[system], decollate=False,
    )  # fmt: skip
    if validate:
        trainer.add_event_handler(Events.STARTED, lambda: evaluator.run())
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run())
    trainer.run()
    return trainer


def rows(folder, kind="system"):
    path = folder / "metrics.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [row for row in found if row["kind"] == kind]


def test_it_looks_at_the_first_batch_and_then_when_it_is_time(tmp_path):
    run(tmp_path)
    assert [row["iteration"] for row in rows(tmp_path)] == [1, 4, 7, 10]
    assert rows(tmp_path)[0].items() >= {"epoch": 1, "cpu": 0.5, "ram_free": GB}.items()


def test_it_looks_while_it_validates_too_but_not_before_training_began(tmp_path):
    run(tmp_path, validate=True, every_n_seconds=20)
    assert [row["iteration"] for row in rows(tmp_path)] == [1, 3, 5, 7, 9, 10, 10, 10]


@pytest.mark.parametrize("every", [0, -1])
def test_it_can_be_turned_off(tmp_path, every):
    run(tmp_path, every_n_seconds=every)
    assert rows(tmp_path) == []


def test_a_disk_that_fills_up_is_said_in_the_log_and_in_a_row(tmp_path, caplog):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").write_bytes(bytes(1000))
    left = iter([5000, 1500, 1400, 500])
    trainer = run(tmp_path, probe=lambda: sample(next(left)))
    assert [(row["level"], row["iteration"]) for row in rows(tmp_path, "warning")] == [("warning", 4), ("error", 10)]
    assert rows(tmp_path, "warning")[0]["title"] == "The disk is nearly full"
    said = [record.levelno for record in caplog.records if "disk is nearly full" in record.message]
    assert said == [logging.WARNING, logging.ERROR]
    state = trainer.state.kept["system"].state_dict()
    assert state == {"said": {"disk": "error"}}
    again = System(tmp_path)
    again.load_state_dict(state)
    assert again.alarms(sample(500), 1000) == []


def test_before_the_first_checkpoint_its_size_is_reckoned_from_the_network(tmp_path):
    engine = Engine(lambda *_: None)
    engine.network = torch.nn.Linear(10, 10, bias=False)
    assert System(tmp_path)._checkpoint(engine) == 3 * 400


def test_the_real_probe_gives_a_row(tmp_path):
    run(tmp_path, probe=None)
    found = rows(tmp_path)[0]
    assert found["ram_process"] > 0
    assert found["disk_free"] > 0
