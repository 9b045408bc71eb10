"""RAM, GPUs, shared memory and disk: what there is and what is free, inside a container too.

Not psutil alone: it reports the machine, and a container is killed at its own limit, which is often far below that.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SHM = Path("/dev/shm")
CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
# Of a memory cgroup: its limit, its usage, and the fields of memory.stat with the page cache, which the kernel gives
# back under pressure, also where it was used more than once (active). The names of version 2 and of version 1.
_CGROUP_FILES = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)


@dataclass(frozen=True)
class Ram:
    """Main memory of this machine, or of the container where it has a limit; bytes.

    Args:
        total: the limit.
        used: by all processes, without the file cache that the kernel can give back.
        free: what can be allocated now.
    """

    total: int
    used: int
    free: int


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Args:
        load: share of the time in which it was computing, 0 to 1; None where the driver does not report it.
        memory_used: bytes, of all processes.
        memory_total: bytes.
    """

    load: float | None
    memory_used: int
    memory_total: int


@dataclass(frozen=True)
class Space:
    """Room in a file system; bytes."""

    free: int
    total: int


def ram() -> Ram:
    """Return the RAM of the machine, or of the tightest container around this process."""
    machine = psutil.virtual_memory()
    tightest = Ram(int(machine.total), int(machine.used), int(machine.available))
    for folder in _memory_cgroups():
        for limit_file, usage_file, cache_fields in _CGROUP_FILES:
            with contextlib.suppress(OSError, ValueError):
                limit = int((folder / limit_file).read_text(encoding="ascii"))
                # Usage counts the page cache: a container that has just read big files looks full without this.
                usage = int((folder / usage_file).read_text(encoding="ascii"))
                used = max(0, usage - _file_cache(folder, cache_fields))
                free = max(0, min(limit - used, int(machine.available)))
                if limit < machine.total and (tightest.total == machine.total or free < tightest.free):
                    tightest = Ram(limit, used, free)
    return tightest


def _memory_cgroups() -> Iterator[Path]:
    """Yield the folders of this process's memory cgroups, innermost first, and the root of each hierarchy.

    Inside a container `/proc/self/cgroup` may name a folder of the host that does not exist there; the root is then
    the container's own. On a host the limit may stand at any folder on the way up (a systemd slice, a Slurm job).
    """
    roots = {"": CGROUP, "memory": CGROUP / "memory"}
    with contextlib.suppress(OSError):
        for line in _MEMBERSHIP.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            root = roots.get("memory" if "memory" in controllers.split(",") else controllers)
            parts = [part for part in path.split("/") if part]
            if root is not None and ".." not in parts:
                for depth in range(len(parts), 0, -1):
                    yield root.joinpath(*parts[:depth])
    yield from roots.values()


def _file_cache(folder: Path, names: tuple[str, ...]) -> int:
    with contextlib.suppress(OSError):
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        fields = dict(line.partition(" ")[::2] for line in lines)
        return sum(int(fields.get(name, 0)) for name in names)
    return 0


def process_ram(children: bool = False) -> int:
    """Return the bytes of RAM that this process holds, with those of its children if asked for."""
    process, total = psutil.Process(), 0
    for member in [process, *(process.children(recursive=True) if children else [])]:
        with contextlib.suppress(psutil.Error):  # a child may have ended by now
            total += int(member.memory_info().rss)
    return total


def disk(folder: str | Path) -> Space:
    """Return the room where a folder lies, or will lie once it is made."""
    folder = Path(folder)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = psutil.disk_usage(str(folder))
    return Space(int(usage.free), int(usage.total))


def shared_memory() -> Space | None:
    """Return the room in /dev/shm, where loader processes hand over batches; None on systems without it."""
    return disk(SHM) if SHM.is_dir() else None


def gpus() -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs that CUDA_VISIBLE_DEVICES leaves to this process, in CUDA's order.

    Without torch loaded there are none: nothing in this process can use one.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ()
    return tuple(_gpu(torch, index) for index in range(torch.cuda.device_count()))


def free_gpu_memory(device: Any) -> int | None:
    """Return the free bytes of a CUDA device, a `torch.device`; None for any other device."""
    if device.type != "cuda":
        return None
    return int(sys.modules["torch"].cuda.mem_get_info(device)[0])


def _gpu(torch: Any, index: int) -> Gpu:
    try:
        import pynvml

        pynvml.nvmlInit()  # counted by the library: cheap after the first time
        # The driver numbers all GPUs of the machine, CUDA those that are visible: the UUID is what both know.
        name = str(torch.cuda.get_device_properties(index).uuid)
        name = name if name.startswith(("GPU-", "MIG-")) else f"GPU-{name}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(name.encode())
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        try:
            load = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        except pynvml.NVMLError:  # a slice of a GPU (MIG) has no load of its own
            load = None
        return Gpu(load, int(memory.used), int(memory.total))
    except Exception:  # NVML is missing or old: CUDA itself knows the memory
        free, total = torch.cuda.mem_get_info(index)
        return Gpu(None, int(total - free), int(total))


def parse_bytes(text: str) -> int:
    """Return the bytes that `6GB`, `500 MB` or `1.5g` stands for, 1000 to a step.

    Raises:
        ValueError: it is no amount of memory.

    Example:
        >>> parse_bytes("1.5 GB"), parse_bytes("500m")
        (1500000000, 500000000)
    """
    number = text.strip().upper().removesuffix("B").strip()
    factor = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}.get(number[-1:], 1)
    amount = float(number[:-1] if factor > 1 else number) * factor
    if not (math.isfinite(amount) and amount > 0):
        raise ValueError(text)
    return int(amount)


def format_bytes(count: float) -> str:
    """Return an amount of memory in GB with at least two digits.

    Example:
        >>> format_bytes(6.71e9), format_bytes(4.2e8), format_bytes(2e6), format_bytes(1.28e11)
        ('6.7 GB', '0.42 GB', '0.002 GB', '128 GB')
    """
    gigabytes = count / 1e9
    return f"{gigabytes:.0f} GB" if gigabytes >= 10 else f"{gigabytes:.2g} GB"
