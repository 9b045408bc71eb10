"""What the machine has left: GPUs, CPU, RAM, disk and shared memory, as they stand now."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from medseg import resources
from medseg.resources import Gpu


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
        psutil.cpu_percent(None)  # load is since the call before

    def __call__(self) -> Sample:
        """One look."""
        ram, shm = resources.ram(), resources.shared_memory()
        return Sample(
            cpu=psutil.cpu_percent(None) / 100,
            ram_used=ram.used,
            ram_free=ram.free,
            ram_process=resources.process_ram(children=True),
            disk_free=resources.disk(self.folder).free,
            shm_free=None if shm is None else shm.free,
            shm_total=None if shm is None else shm.total,
            gpu=resources.gpus() if self.gpu else (),
        )
