"""What the machine has left: GPUs, CPU, RAM, disk and shared memory, as they stand now."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

SHM = Path("/dev/shm")
_GROUPS = (  # limit, use, and what of it the system can take back: of a container, by version of cgroups
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Args:
        load: share of the time in which it was computing, 0 to 1; None where the driver does not say.
        memory_used: bytes, of all processes.
        memory_total: bytes.
    """

    load: float | None
    memory_used: int
    memory_total: int


@dataclass(frozen=True)
class Sample:
    """One look at the machine; bytes, and shares from 0 to 1.

    Args:
        cpu: load of all cores together since the look before.
        ram_used: of the machine, or of the container where it has a limit.
        ram_free: what can be had.
        ram_process: of this process and its children.
        disk_free: where the run's folder lies.
        shm_free: of /dev/shm, where workers hand over batches; None where there is none.
        shm_total: its size.
        gpu: the GPUs that this process sees, in their order.
    """

    cpu: float
    ram_used: int
    ram_free: int
    ram_process: int
    disk_free: int
    shm_free: int | None = None
    shm_total: int | None = None
    gpu: tuple[Gpu, ...] = field(default=())

    def row(self) -> dict[str, Any]:
        """The fields of a `system` row; what the machine does not have is not among them."""
        found = {
            "cpu": round(self.cpu, 4),
            "ram_used": self.ram_used,
            "ram_free": self.ram_free,
            "ram_process": self.ram_process,
            "disk_free": self.disk_free,
        }
        if self.shm_free is not None:
            found["shm_free"] = self.shm_free
        gpus = [{"load": g.load, "memory_used": g.memory_used, "memory_total": g.memory_total} for g in self.gpu]
        return {"gpu": gpus, **found} if gpus else found


class Probe:
    """Look at the machine.

    Args:
        folder: where the run writes.
        gpu: whether GPUs are looked at; only where the run uses one, for looking wakes the driver.
    """

    def __init__(self, folder: str | Path, gpu: bool) -> None:
        self.folder, self.gpu = Path(folder), gpu
        self._process = psutil.Process()
        psutil.cpu_percent(None)  # load is since the call before

    def __call__(self) -> Sample:
        """One look."""
        used, free = _ram()
        shm = psutil.disk_usage(str(SHM)) if SHM.is_dir() else None
        return Sample(
            cpu=psutil.cpu_percent(None) / 100,
            ram_used=used,
            ram_free=free,
            ram_process=self._ram_process(),
            disk_free=psutil.disk_usage(str(_existing(self.folder))).free,
            shm_free=None if shm is None else shm.free,
            shm_total=None if shm is None else shm.total,
            gpu=gpus() if self.gpu else (),
        )

    def _ram_process(self) -> int:
        total = 0
        for one in (self._process, *self._process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # a child may have ended by now
                total += one.memory_info().rss
        return total


def gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that this process sees, as CUDA_VISIBLE_DEVICES says, in CUDA's order; empty without one."""
    if not torch.cuda.is_available():
        return ()
    return tuple(_gpu(index) for index in range(torch.cuda.device_count()))


def _gpu(index: int) -> Gpu:
    try:
        import pynvml

        pynvml.nvmlInit()  # counted by the library: cheap after the first time
        name = str(torch.cuda.get_device_properties(index).uuid)
        name = name if name.startswith(("GPU-", "MIG-")) else f"GPU-{name}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(name.encode())
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        try:
            load = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        except pynvml.NVMLError:  # a slice of a GPU has none of its own
            load = None
        return Gpu(load, int(memory.used), int(memory.total))
    except Exception:  # no NVML in this container, or an old one: CUDA itself knows the memory
        free, total = torch.cuda.mem_get_info(index)
        return Gpu(None, int(total - free), int(total))


def _ram(groups: Any = _GROUPS) -> tuple[int, int]:
    """Bytes of RAM that are used, and that can be had: of the container where it has a limit, else of the machine."""
    machine = psutil.virtual_memory()
    for folder, limit, current, reclaimable in groups:
        try:
            most = int((folder / limit).read_text(encoding="ascii"))
            lines = (line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
            cache = next(int(value) for name, value in lines if name == reclaimable)
            used = int((folder / current).read_text(encoding="ascii")) - cache
        except (OSError, ValueError, StopIteration):
            continue
        if most < machine.total:
            return used, max(0, min(most - used, machine.available))
    return int(machine.used), int(machine.available)


def _existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
