"""How the C library of Linux hands out memory."""

from __future__ import annotations

import ctypes
import logging
import os
import platform

logger = logging.getLogger(__name__)

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # M_* of malloc.h
_SAID = ("GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed, instead of giving every big buffer back to the system and asking for it anew.

    A training step on a CPU frees and takes hundreds of MB, and each time the system clears them: it takes up to 1.7
    times as long. What the process holds at its highest is held until it ends. Nothing is done without glibc, or
    where the environment already says how its allocator shall behave.

    Returns:
        whether it was set.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _SAID):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    done = [
        mallopt(option, value) for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
    ]
    logger.debug("glibc keeps freed memory: %s", all(done))
    return all(done)
