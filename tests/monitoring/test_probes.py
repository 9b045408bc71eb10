import psutil
import pytest
import torch

from medseg import resources
from medseg.monitoring.probes import Probe, Sample
from medseg.resources import Gpu


def test_a_look_at_this_machine(tmp_path):
    ballast = bytearray(64 << 20)
    found = Probe(tmp_path / "not" / "yet" / "there", gpu=True)()
    machine = psutil.virtual_memory()
    assert 0 <= found.cpu <= 1
    assert found.ram_process > len(ballast)
    assert 0 < found.ram_free <= machine.total
    assert found.disk_free == pytest.approx(psutil.disk_usage(str(tmp_path)).free, rel=0.05)
    assert (found.shm_free is None) == (not resources.SHM.is_dir())
    assert bool(found.gpu) == torch.cuda.is_available()


def test_a_row_has_what_the_machine_has():
    plain = {"cpu": 0.25, "ram_used": 1, "ram_free": 2, "ram_process": 3, "disk_free": 4}
    assert Sample(**plain).row() == plain
    full = Sample(**plain, shm_free=5, shm_total=6, gpu=(Gpu(0.5, 7, 8),)).row()
    assert full == {**plain, "shm_free": 5, "gpu": [{"load": 0.5, "memory_used": 7, "memory_total": 8}]}
