"""Where a run computes, and what is set before it starts."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import platform
import sys
import threading

import torch
from monai.utils import set_determinism

from medseg.errors import DeviceError

logger = logging.getLogger(__name__)

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # M_* of malloc.h
_WAIT_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_PARALLEL_GRAIN = 32768  # elements that torch gives to one thread
_ALLOCATOR_VARIABLES = ("GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory, instead of returning every big buffer to the system and asking for it again.

    A training step on a CPU frees and takes hundreds of MB, and each time the system clears the pages: without this a
    step takes up to 1.7 times as long. The process then holds its highest memory use until it ends. Nothing is done
    without glibc, or where the environment configures its allocator.

    Returns:
        Whether it was set.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _ALLOCATOR_VARIABLES):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    options = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
    results = [mallopt(option, value) for option, value in options]
    logger.debug("glibc keeps freed memory: %s", all(results))
    return all(results)


@functools.cache
def share_cores() -> int:
    """Let torch's threads sleep soon while they wait for each other, when torch was imported before medseg.

    libgomp's threads spin for milliseconds at the end of each operation. Beside other work on the machine a step then
    takes up to ten times as long. A variable would change this, but libgomp reads it once, when torch is imported:
    `import medseg` sets it if it comes first. Otherwise this starts threads that run one small operation and then
    sleep: libgomp spins only shortly as soon as it manages more threads than there are cores. Nothing is done where
    the environment says how threads wait, or with another OpenMP library (docs/benchmarks/learning.md).

    Returns:
        How many such threads were started.
    """
    threads = torch.get_num_threads()
    if sys.platform != "linux" or threads < 2 or any(name in os.environ for name in _WAIT_VARIABLES):
        return 0
    cores = len(os.sched_getaffinity(0))
    started = [threading.Event() for _ in range(cores // threads or 1)]
    for event in started:
        # daemon: it sleeps until the process ends, because libgomp forgets the team of a thread that has ended
        threading.Thread(target=_run_and_sleep, args=(event, threads), daemon=True, name="medseg-share-cores").start()
    for event in started:
        event.wait(timeout=10)
    return len(started)


def _run_and_sleep(started: threading.Event, threads: int) -> None:
    torch.ones(threads * _PARALLEL_GRAIN).add_(1)
    started.set()
    threading.Event().wait()


def select_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device of that name; `auto` is CUDA where it is available, else the CPU.

    Raises:
        DeviceError: the device is not available, or no device has that name.

    >>> select_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"device '{name}'", "torch knows no such device", "", "Use auto, cpu or cuda:0.") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            problem = f"torch can use {count} CUDA devices on this machine"
            fix = "Use device=cpu, or install a torch build for your GPU's driver."
            raise DeviceError(f"device '{device}'", problem, "", fix)
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device 'mps'", "torch cannot use it on this machine", "", "Use device=cpu.")
    return device


def default_workers() -> int:
    """Return how many loader processes suit this machine: up to 8 with one core left over, none where they are spawned.

    On Windows and macOS a process is spawned, and would take a copy of the whole cache along.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores - 1) if sys.platform == "linux" and cores > 2 else 0


def prepare(device: str | torch.device, seed: int, benchmark: bool = True) -> torch.device:
    """Check the device, seed Python, numpy and torch, and set cuDNN; on a CPU, see `keep_freed_memory`, `share_cores`.

    Args:
        device: see `select_device`.
        seed: of everything that is drawn in this process.
        benchmark: let cuDNN try its algorithms; faster, but no longer the same to the last bit on a GPU.

    Raises:
        DeviceError: the device is not available.
    """
    chosen = select_device(device)
    if chosen.type == "cpu":
        keep_freed_memory()
        share_cores()
    set_determinism(seed=seed)
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.deterministic = not benchmark
    torch.set_float32_matmul_precision("high")
    return chosen
