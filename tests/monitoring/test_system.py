"""The machine: one look at it, warnings before something runs out, and rows."""

import json
import logging

import psutil
import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from medseg import resources
from medseg.monitoring import System
from medseg.monitoring.system import Alarms, sample

GB = 10**9


def gpu(load, used):
    return {"load": load, "memory_used": used * GB, "memory_total": 24 * GB}


def look(**changes):
    plain = {
        "cpu": 0.5, "ram_used": 40 * GB, "ram_free": 60 * GB, "ram_process": 8 * GB, "disk_free": 100 * GB,
        "shm_free": 8 * GB, "shm_total": 10 * GB, "gpu": [gpu(0.9, 10)],
    }  # fmt: skip
    return {**plain, **changes}


@pytest.mark.parametrize(
    ("changes", "kind", "worse", "names"),
    [
        ({"disk_free": GB * 3 // 2}, "disk", {"disk_free": GB // 2}, ["1.5 GB", "1 GB"]),
        ({"ram_free": 2 * GB}, "ram", {"ram_free": GB // 2}, ["8 GB", "num_workers", "cache_rate"]),
        ({"shm_free": GB // 2}, "shm", {"shm_free": GB // 5}, ["--shm-size", "num_workers"]),
        ({"gpu": [gpu(0.9, 23)]}, "gpu_memory", None, ["batch_size"]),
    ],
)
def test_a_problem_is_announced_once_and_again_when_it_gets_worse(changes, kind, worse, names):
    alarms = Alarms()
    assert alarms(look(), GB) == []
    (alarm,) = alarms(look(**changes), GB)
    assert (alarm.kind, alarm.level) == (kind, "warning")
    assert all(name in alarm.text for name in names)
    assert alarms(look(**changes), GB) == []
    if worse:
        (alarm,) = alarms(look(**worse), GB)
        assert (alarm.kind, alarm.level) == (kind, "error")
        assert alarms(look(**changes), GB) == alarms(look(**worse), GB) == []


def test_a_problem_that_was_solved_and_comes_back_is_announced_again():
    alarms, full = Alarms(), look(disk_free=GB // 2)
    assert len(alarms(full, GB)) == 1
    for _ in range(10):
        assert alarms(look(), GB) == []
    assert alarms(full, GB) == []
    for _ in range(20):
        assert alarms(look(), GB) == []
    assert [alarm.kind for alarm in alarms(full, GB)] == ["disk"]


def test_values_at_the_limits_are_no_problem():
    just = look(disk_free=2 * GB, ram_used=95 * GB, ram_free=5 * GB, shm_free=GB, gpu=[gpu(0.1, 22.8)])
    assert Alarms()(just, GB, waiting=0.3) == []


def test_a_machine_without_shared_memory_or_gpu_has_no_alarms_for_them():
    assert Alarms()(look(shm_free=None, shm_total=None, gpu=[]), GB, waiting=0.9) == []


def test_a_gpu_that_keeps_waiting_for_data_is_an_alarm_with_its_cures():
    alarms, idle = Alarms(), look(gpu=[gpu(0.4, 10)])
    assert alarms(idle, GB, waiting=0.5) == alarms(idle, GB, waiting=0.5) == []
    assert alarms(look(), GB, waiting=0.5) == []
    assert alarms(idle, GB, waiting=0.5) == alarms(idle, GB, waiting=0.5) == []
    (alarm,) = alarms(idle, GB, waiting=0.5)
    assert alarm.kind == "data"
    for cure in ("40%", "50%", "num_workers", "cache_rate", "store", "augment"):
        assert cure in alarm.text
    assert alarms(idle, GB, waiting=0.5) == []


def test_an_unknown_load_is_not_a_low_one():
    alarms, unknown = Alarms(), look(gpu=[gpu(None, 10)])
    assert [alarms(unknown, GB, waiting=0.9) for _ in range(5)] == [[]] * 5


def test_the_gpu_of_this_run_counts():
    full = [gpu(0.9, 23), gpu(0.9, 2)]
    assert Alarms()(look(gpu=full), GB, device=1) == []
    assert len(Alarms()(look(gpu=full), GB, device=0)) == 1


def test_a_sample_of_this_machine(tmp_path):
    ballast = bytearray(64 << 20)
    fields = sample(tmp_path / "not" / "yet" / "there", gpu=True)
    machine = psutil.virtual_memory()
    assert 0 <= fields["cpu"] <= 1
    assert fields["ram_process"] > len(ballast)
    assert 0 < fields["ram_free"] <= machine.total
    assert fields["disk_free"] == pytest.approx(psutil.disk_usage(str(tmp_path)).free, rel=0.05)
    assert ("shm_free" in fields) == resources.SHM.is_dir()
    assert ("gpu" in fields) == torch.cuda.is_available()


def test_gpus_are_in_a_sample_where_there_are_any(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "gpus", lambda: (resources.Gpu(0.5, 7, 8),))
    assert sample(tmp_path, gpu=True)["gpu"] == [{"load": 0.5, "memory_used": 7, "memory_total": 8}]
    assert "gpu" not in sample(tmp_path, gpu=False)


DATA = [{"image": torch.rand(4, 1, 2), "label": torch.rand(4, 1, 2)} for _ in range(10)]


class Clock:
    """Ten seconds a look."""

    now = 0.0

    def __call__(self):
        self.now += 10
        return self.now


def constant(disk_free=100 * GB):
    return {"cpu": 0.5, "ram_used": GB, "ram_free": GB, "ram_process": GB, "disk_free": disk_free}


def run(folder, probe=constant, epochs=1, validate=False, **options):
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


def test_the_machine_is_sampled_at_the_first_batch_and_then_when_due(tmp_path):
    run(tmp_path)
    assert [row["iteration"] for row in rows(tmp_path)] == [1, 4, 7, 10]
    assert rows(tmp_path)[0].items() >= {"epoch": 1, "cpu": 0.5, "ram_free": GB}.items()


def test_the_machine_is_sampled_during_validation_too(tmp_path):
    run(tmp_path, validate=True, every_n_seconds=20)
    assert [row["iteration"] for row in rows(tmp_path)] == [1, 3, 5, 7, 9, 10, 10, 10]


@pytest.mark.parametrize("every", [0, -1])
def test_sampling_can_be_turned_off(tmp_path, every):
    run(tmp_path, every_n_seconds=every)
    assert rows(tmp_path) == []


def test_a_disk_that_fills_up_is_in_the_log_and_in_a_row(tmp_path, caplog):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").write_bytes(bytes(1000))
    left = iter([5000, 1500, 1400, 500])
    trainer = run(tmp_path, probe=lambda: constant(next(left)))
    assert [(row["level"], row["iteration"]) for row in rows(tmp_path, "warning")] == [("warning", 4), ("error", 10)]
    assert rows(tmp_path, "warning")[0]["title"] == "The disk is nearly full"
    said = [record.levelno for record in caplog.records if "disk is nearly full" in record.message]
    assert said == [logging.WARNING, logging.ERROR]
    state = trainer.state.stateful["system"].state_dict()
    assert state == {"announced": {"disk": "error"}}
    again = System(tmp_path)
    again.load_state_dict(state)
    assert again.alarms(constant(500), 1000) == []


def test_the_size_of_the_first_checkpoint_is_estimated(tmp_path):
    engine = Engine(lambda *_: None)
    engine.network = torch.nn.Linear(10, 10, bias=False)
    assert System(tmp_path)._checkpoint_bytes(engine) == 3 * 400


def test_the_real_probe_gives_a_row(tmp_path):
    run(tmp_path, probe=None)
    found = rows(tmp_path)[0]
    assert found["ram_process"] > 0
    assert found["disk_free"] > 0
