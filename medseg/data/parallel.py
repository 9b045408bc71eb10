"""One function over many jobs, in processes of their own, with a bar; what fails is given back, the rest goes on."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

from medseg.errors import ConfigError, MedsegError, RunError

Job = TypeVar("Job")
Result = TypeVar("Result")


def default_workers() -> int:
    """Processes that a command starts where it is not told: one for each core, at most 8; none on Windows."""
    return 0 if sys.platform == "win32" else min(8, os.cpu_count() or 1)


def run_each(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int = 0, what: str = ""
) -> Iterator[tuple[Job, Result | MedsegError]]:
    """Give each job with its result, or with the error that stopped it, as they are done.

    Processes are spawned, so that it runs alike everywhere: `function` must be importable, jobs and results must
    pickle, and a script that calls this with workers needs `if __name__ == "__main__"`.

    Args:
        function: what to do with a job; a `MedsegError` it raises concerns that job alone.
        jobs: what to do it with.
        workers: processes; 0 or 1 does everything in this one.
        what: the name on the bar.

    Raises:
        ConfigError: fewer than 0 workers; RunError: a worker died, for want of memory perhaps.
    """
    if workers < 0:
        raise ConfigError("workers", "must be 0 or more", str(workers))
    with tqdm(total=len(jobs), desc=what, unit="case", disable=None, leave=False) as bar:
        for pair in _in_processes(function, jobs, workers) if workers > 1 and len(jobs) > 1 else _here(function, jobs):
            bar.update()
            yield pair


def _here(function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[tuple[Job, Result | MedsegError]]:
    for job in jobs:
        try:
            result: Result | MedsegError = function(job)
        except MedsegError as error:
            result = error
        yield job, result


def _in_processes(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, Result | MedsegError]]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        waiting: dict[Future[Result], Job] = {pool.submit(function, job): job for job in jobs}
        try:
            for future in as_completed(waiting):
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise RunError(
                        f"{getattr(function, '__name__', function)}",
                        "needs its worker processes",
                        "one that died; memory may have run out",
                        "Take fewer workers.",
                    ) from error
                if error is not None and not isinstance(error, MedsegError):
                    raise error
                yield waiting[future], error if isinstance(error, MedsegError) else future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
