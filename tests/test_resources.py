"""What memory and room there is, in containers too, from made-up cgroup files and a made-up driver."""

import sys
from types import SimpleNamespace

import psutil
import pytest
import torch

from medseg import resources
from medseg.resources import Gpu, Ram, format_bytes, gpus, parse_bytes

MB = 1 << 20


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """Write the files of a memory cgroup: `cgroup(folder, version, limit, usage, cache)`; none exist at first."""
    monkeypatch.setattr(resources, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(resources, "_MEMBERSHIP", tmp_path / "membership")

    def write(folder, version, limit, usage, cache=None):
        limit_file, usage_file, (inactive, active) = resources._CGROUP_FILES[0 if version == 2 else 1]
        path = tmp_path / "cgroup" / folder
        path.mkdir(parents=True, exist_ok=True)
        (path / limit_file).write_text(f"{limit}\n")
        (path / usage_file).write_text(f"{usage}\n")
        if cache is not None:
            half = cache // 2
            (path / "memory.stat").write_text(f"anon 5\n{inactive} {half}\nshmem 7\n{active} {cache - half}\n")

    write.membership = lambda text: (tmp_path / "membership").write_text(text)
    return write


def test_without_a_container_the_machine_counts(cgroup):
    machine, memory = psutil.virtual_memory(), resources.ram()
    assert memory.total == machine.total
    assert memory.free == pytest.approx(machine.available, rel=0.2)


@pytest.mark.parametrize(("version", "folder"), [(2, "."), (1, "memory")])
def test_a_container_is_limited_and_its_page_cache_counts_as_free(cgroup, version, folder):
    cgroup(folder, version, 100 * MB, 90 * MB, cache=60 * MB)
    assert resources.ram() == Ram(100 * MB, 30 * MB, 70 * MB)


def test_a_cache_that_is_all_active_counts_as_free_in_both_versions(tmp_path, cgroup):
    lines = {2: "inactive_file 0\nactive_file {}\nfile {}\n", 1: "total_active_file {}\ncache {}\n"}
    for version, folder in ((2, "."), (1, "memory")):
        cgroup(folder, version, 100 * MB, 99 * MB)
        (tmp_path / "cgroup" / folder / "memory.stat").write_text(lines[version].format(80 * MB, 90 * MB))
        assert resources.ram() == Ram(100 * MB, 19 * MB, 81 * MB)
        (tmp_path / "cgroup" / folder / "memory.stat").unlink()
        (tmp_path / "cgroup" / folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")).unlink()


def test_shared_memory_in_the_cache_is_no_free_memory(tmp_path, cgroup):
    cgroup(".", 2, 100 * MB, 90 * MB)
    (tmp_path / "cgroup" / "memory.stat").write_text(f"file {80 * MB}\nshmem {70 * MB}\nactive_file {10 * MB}\n")
    assert resources.ram() == Ram(100 * MB, 80 * MB, 20 * MB)


def test_a_container_of_cgroup_1_sees_its_own_folder_as_the_root(cgroup):
    cgroup.membership("12:memory:/docker/0123\n1:name=systemd:/docker/0123\n0::/system.slice\n")
    cgroup("memory", 1, 100 * MB, 90 * MB, cache=50 * MB)
    assert resources.ram() == Ram(100 * MB, 40 * MB, 60 * MB)


def test_a_container_without_statistics_counts_all_of_its_usage(cgroup):
    cgroup(".", 2, 100 * MB, 90 * MB)
    assert resources.ram() == Ram(100 * MB, 90 * MB, 10 * MB)


@pytest.mark.parametrize("limit", ["max", 1 << 62, "broken"])
def test_a_cgroup_without_a_limit_is_the_machine(cgroup, limit):
    cgroup(".", 2, limit, 90 * MB, cache=0)
    assert resources.ram().total == psutil.virtual_memory().total


def test_more_usage_than_the_limit_leaves_nothing(cgroup):
    cgroup(".", 2, 100 * MB, 120 * MB, cache=0)
    assert resources.ram().free == 0


@pytest.mark.parametrize(("version", "line", "root"), [(2, "0::/a/b", ""), (1, "4:cpu\n5:memory:/a/b", "memory")])
def test_the_tightest_limit_on_the_way_up_counts(cgroup, version, line, root):
    cgroup.membership("9:cpuset:/x\n" + line.replace("4:cpu\n", "4:cpu:/y\n") + "\n")
    cgroup(f"{root}/a/b".strip("/"), version, 100 * MB, 10 * MB, cache=0)
    cgroup(f"{root}/a".strip("/"), version, 200 * MB, 180 * MB, cache=0)
    assert resources.ram() == Ram(200 * MB, 180 * MB, 20 * MB)


def test_a_membership_of_the_host_leads_to_the_root(cgroup):
    cgroup.membership("0::/../../docker/abc\n")
    cgroup(".", 2, 100 * MB, 10 * MB, cache=0)
    assert resources.ram().total == 100 * MB


def test_a_process_counts_its_children():
    before = resources.process_ram(children=True)
    assert 10 * MB < resources.process_ram() <= before
    code = "import sys; block = bytearray(b'x' * (80 << 20)); print(1, flush=True); sys.stdin.read()"
    with psutil.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as child:
        child.stdout.readline()
        during = resources.process_ram(children=True)
        child.stdin.close()
    assert during - before > 60 * MB


def test_room_is_that_of_the_nearest_folder_that_exists(tmp_path):
    assert resources.disk(tmp_path / "not" / "yet").total == psutil.disk_usage(str(tmp_path)).total
    assert (resources.shared_memory() is None) == (not resources.SHM.is_dir())


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


def test_gpus_come_in_cudas_order_and_a_load_may_be_unknown(cuda):
    assert gpus() == (Gpu(0.4, 10, 100), Gpu(None, 20, 200))


def test_without_nvml_cuda_reports_the_memory(cuda):
    def fail():
        raise OSError("no driver")

    cuda.nvmlInit = fail
    assert gpus() == (Gpu(None, 7, 10), Gpu(None, 7, 10))


def test_only_a_cuda_device_has_memory_of_its_own(cuda):
    assert resources.free_gpu_memory(torch.device("cpu")) is None
    assert resources.free_gpu_memory(torch.device("cuda", 1)) == 3


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "lots", "0", "nan", "inf"])
def test_text_that_is_no_amount_of_memory_is_refused(text):
    with pytest.raises(ValueError):
        parse_bytes(text)


def test_amounts_of_memory_are_read_and_printed():
    assert (parse_bytes("6GB"), parse_bytes("800 mb"), parse_bytes("17")) == (6 * 10**9, 8 * 10**8, 17)
    assert format_bytes(1.5e10) == "15 GB"
