"""Run compiled loops, which release Python's lock, in threads that sleep between calls."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def parallel_slices(length: int, work: Callable[[slice], Result], threads: int, grain: int = 1) -> list[Result]:
    """Call `work` for parts of `range(length)`, one of them in the caller's thread; return the results in order.

    Args:
        length: of the range.
        work: takes a part.
        threads: the largest number of parts.
        grain: the smallest length of a part, unless there is only one.

    >>> parallel_slices(10, lambda part: (part.start, part.stop), threads=2)
    [(0, 5), (5, 10)]
    """
    count = max(1, min(threads, length // grain))
    edges = [length * index // count for index in range(count + 1)]
    first, *others = (slice(low, high) for low, high in itertools.pairwise(edges))
    futures = [_pool().submit(work, part) for part in others]
    return [work(first), *(future.result() for future in futures)]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="medseg-loops")


if hasattr(os, "register_at_fork"):
    # Threads do not exist in a forked process: the first call there starts new ones.
    os.register_at_fork(after_in_child=_pool.cache_clear)
