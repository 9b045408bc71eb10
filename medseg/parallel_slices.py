"""Threads for compiled loops that give up Python's lock; they sleep until they are wanted."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def parallel_slices(length: int, work: Callable[[slice], Result], threads: int, grain: int = 1) -> list[Result]:
    """Do `work` for parts of `range(length)`, one of them in the caller's thread; what each gave, in order.

    Args:
        length: how much there is.
        work: takes a part.
        threads: at most so many parts.
        grain: what a part holds at least, where there is more than one.

    >>> in_threads(10, lambda part: (part.start, part.stop), threads=2)
    [(0, 5), (5, 10)]
    """
    count = max(1, min(threads, length // grain))
    edges = [length * number // count for number in range(count + 1)]
    first, *rest = (slice(low, high) for low, high in itertools.pairwise(edges))
    others = [_pool().submit(work, part) for part in rest]
    return [work(first), *(other.result() for other in others)]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="medseg-loops")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not come along into a fork
