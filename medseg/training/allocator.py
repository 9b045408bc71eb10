"""Memory that stays with the process: what a network frees in one layer it takes again in the next.

glibc gives large blocks back to the system as soon as they are freed, and gets them again page by page; on a CPU that
takes a fourth to a half of a network's time (docs/benchmarks/inference.md).
"""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of mallopt(3)
_NEVER, _AT_ONCE = 2**31 - 1, 256 * 2**20


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed, for the whole process; whether it does.

    Where the environment sets glibc's allocator (`MALLOC_..._`, `GLIBC_TUNABLES`), or there is another C library,
    everything stays as it is.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has none
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _AT_ONCE))
    return all(mallopt(option, value) == 1 for option, value in settings)
