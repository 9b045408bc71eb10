import sys
from types import SimpleNamespace

import psutil
import pytest
import torch

from medseg.monitoring import probes
from medseg.monitoring.probes import Gpu, Probe, Sample, gpus


def test_a_look_at_this_machine(tmp_path):
    ballast = bytearray(64 << 20)
    found = Probe(tmp_path / "not" / "yet" / "there", gpu=True)()
    machine = psutil.virtual_memory()
    assert 0 <= found.cpu <= 1
    assert found.ram_process > len(ballast)
    assert 0 < found.ram_free <= machine.total
    assert found.disk_free == pytest.approx(psutil.disk_usage(str(tmp_path)).free, rel=0.05)
    assert (found.shm_free is None) == (not probes.SHM.is_dir())
    assert bool(found.gpu) == torch.cuda.is_available()


def test_children_are_counted(tmp_path):
    probe = Probe(tmp_path, gpu=False)
    before = probe().ram_process
    code = "import sys; held = bytearray(b'x' * (80 << 20)); print(1, flush=True); sys.stdin.read()"
    with psutil.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as child:
        child.stdout.readline()
        during = probe().ram_process
        child.stdin.close()
    assert during - before > 60 << 20


def test_a_row_has_what_the_machine_has():
    plain = {"cpu": 0.25, "ram_used": 1, "ram_free": 2, "ram_process": 3, "disk_free": 4}
    assert Sample(**plain).row() == plain
    full = Sample(**plain, shm_free=5, shm_total=6, gpu=(Gpu(0.5, 7, 8),)).row()
    assert full == {**plain, "shm_free": 5, "gpu": [{"load": 0.5, "memory_used": 7, "memory_total": 8}]}


def test_a_containers_limit_is_what_counts_and_its_file_cache_can_be_had(tmp_path):
    for name, text in {
        "memory.max": f"{100 << 20}\n", "memory.current": f"{90 << 20}\n",
        "memory.stat": f"anon 5\ninactive_file {60 << 20}\n",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    group = (tmp_path, "memory.max", "memory.current", "inactive_file")
    assert probes._ram([group]) == (30 << 20, 70 << 20)
    (tmp_path / "memory.max").write_text("max\n")
    assert sum(probes._ram([group])) > 100 << 20
    assert sum(probes._ram([(tmp_path / "none", *group[1:])])) > 100 << 20


class NoLoad(Exception):
    pass


@pytest.fixture
def cuda(monkeypatch):
    """Two GPUs as CUDA_VISIBLE_DEVICES leaves them, the driver's second and first."""
    names = ["11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"]
    memory = {f"GPU-{names[0]}": (10, 100), f"GPU-{names[1]}": (20, 200)}

    def load(handle):
        if handle.endswith("0"):
            raise NoLoad
        return SimpleNamespace(gpu=40)

    driver = SimpleNamespace(
        NVMLError=NoLoad,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda name: name.decode(),
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=memory[handle][0], total=memory[handle][1]),
        nvmlDeviceGetUtilizationRates=load,
    )
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=names[index]))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (3, 10))
    return driver


def test_gpus_come_in_the_order_of_cuda_and_a_load_may_be_unknown(cuda):
    assert gpus() == (Gpu(0.4, 10, 100), Gpu(None, 20, 200))


def test_without_the_drivers_library_cuda_says_what_memory_is_taken(cuda):
    def fail():
        raise OSError("no driver")

    cuda.nvmlInit = fail
    assert gpus() == (Gpu(None, 7, 10), Gpu(None, 7, 10))
