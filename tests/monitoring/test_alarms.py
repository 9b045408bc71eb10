import pytest

from medseg.monitoring.alarms import Alarms, size
from medseg.monitoring.probes import Sample
from medseg.resources import Gpu

GB = 10**9


def sample(**changes):
    plain = {
        "cpu": 0.5, "ram_used": 40 * GB, "ram_free": 60 * GB, "ram_process": 8 * GB, "disk_free": 100 * GB,
        "shm_free": 8 * GB, "shm_total": 10 * GB, "gpu": (Gpu(0.9, 10 * GB, 24 * GB),),
    }  # fmt: skip
    return Sample(**{**plain, **changes})


@pytest.mark.parametrize(
    ("changes", "kind", "worse", "names"),
    [
        ({"disk_free": GB * 3 // 2}, "disk", {"disk_free": GB // 2}, ["1.5 GB", "1.0 GB"]),
        ({"ram_free": 2 * GB}, "ram", {"ram_free": GB // 2}, ["8.0 GB", "num_workers", "cache_rate"]),
        ({"shm_free": GB // 2}, "shm", {"shm_free": GB // 5}, ["--shm-size", "num_workers"]),
        ({"gpu": (Gpu(0.9, 23 * GB, 24 * GB),)}, "gpu_memory", None, ["batch_size"]),
    ],
)
def test_what_runs_out_is_said_once_and_again_when_it_gets_worse(changes, kind, worse, names):
    alarms = Alarms()
    assert alarms(sample(), GB) == []
    (alarm,) = alarms(sample(**changes), GB)
    assert (alarm.kind, alarm.level) == (kind, "warning")
    assert all(name in alarm.text for name in names)
    assert alarms(sample(**changes), GB) == []
    if worse:
        (alarm,) = alarms(sample(**worse), GB)
        assert (alarm.kind, alarm.level) == (kind, "error")
        assert alarms(sample(**changes), GB) == alarms(sample(**worse), GB) == []


def test_what_was_mended_and_comes_back_is_said_again():
    alarms, full = Alarms(), sample(disk_free=GB // 2)
    assert len(alarms(full, GB)) == 1
    for _ in range(10):
        assert alarms(sample(), GB) == []
    assert alarms(full, GB) == []
    for _ in range(20):
        assert alarms(sample(), GB) == []
    assert [alarm.kind for alarm in alarms(full, GB)] == ["disk"]


def test_enough_is_enough():
    just = sample(disk_free=2 * GB, ram_used=95 * GB, ram_free=5 * GB, shm_free=GB, gpu=(Gpu(0.1, 95, 100),))
    assert Alarms()(just, GB, waiting=0.3) == []


def test_a_machine_without_shared_memory_or_gpu_has_nothing_to_be_said_of_them():
    assert Alarms()(sample(shm_free=None, shm_total=None, gpu=()), GB, waiting=0.9) == []


def test_a_gpu_that_waits_for_data_is_said_when_it_goes_on_and_names_the_cures():
    alarms, idle = Alarms(), sample(gpu=(Gpu(0.4, 10 * GB, 24 * GB),))
    assert alarms(idle, GB, waiting=0.5) == alarms(idle, GB, waiting=0.5) == []
    assert alarms(sample(), GB, waiting=0.5) == []
    assert alarms(idle, GB, waiting=0.5) == alarms(idle, GB, waiting=0.5) == []
    (alarm,) = alarms(idle, GB, waiting=0.5)
    assert alarm.kind == "data"
    for cure in ("40%", "50%", "num_workers", "cache_rate", "store", "augment"):
        assert cure in alarm.text
    assert alarms(idle, GB, waiting=0.5) == []


def test_a_load_that_nobody_knows_is_no_low_one():
    alarms, unknown = Alarms(), sample(gpu=(Gpu(None, 10 * GB, 24 * GB),))
    assert [alarms(unknown, GB, waiting=0.9) for _ in range(5)] == [[]] * 5


def test_it_is_the_runs_own_gpu_that_counts():
    full = (Gpu(0.9, 23 * GB, 24 * GB), Gpu(0.9, 2 * GB, 24 * GB))
    assert Alarms()(sample(gpu=full), GB, device=1) == []
    assert len(Alarms()(sample(gpu=full), GB, device=0)) == 1


def test_bytes_for_people():
    assert size(999_600_000) == "1000 MB"
