"""Run one function over many cases, in processes, and resume a job that was stopped."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from medseg.atomic import write_text
from medseg.cases import Case
from medseg.errors import ConfigError, DataError, MedsegError, OutputError, RunError

Job = TypeVar("Job")
Result = TypeVar("Result")


def default_processes() -> int:
    """Return how many processes a command starts by default: one per usable core, at most 8; none on Windows.

    Not `medseg.training.default_workers`, which leaves a core to the training loop.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if sys.platform == "win32" else min(8, cores)


def run_each(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int = 0, description: str = ""
) -> Iterator[tuple[Job, Result | MedsegError]]:
    """Yield each job with its result, or with the error that stopped it, in the order in which they end.

    Processes are spawned, so that it runs alike everywhere: `function` must be importable, jobs and results must
    pickle, and a script that calls this with workers needs `if __name__ == "__main__"`.

    Args:
        function: what to do with a job; a `MedsegError` it raises concerns that job alone.
        jobs: what to do it with.
        workers: processes; 0 or 1 does everything in this one.
        description: the name on the progress bar.

    Raises:
        ConfigError: fewer than 0 workers.
        RunError: a worker died, probably for lack of memory.
    """
    if workers < 0:
        raise ConfigError("workers", "the number of processes must be 0 or more", f"got {workers}")
    parallel = workers > 1 and len(jobs) > 1
    with tqdm(total=len(jobs), desc=description, unit="case", disable=None, leave=False) as bar:
        for pair in _run_in_processes(function, jobs, workers) if parallel else _run_here(function, jobs):
            bar.update()
            yield pair


def _run_here(function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[tuple[Job, Result | MedsegError]]:
    for job in jobs:
        try:
            result: Result | MedsegError = function(job)
        except MedsegError as error:
            result = error
        yield job, result


def _run_in_processes(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, Result | MedsegError]]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        waiting: dict[Future[Result], Job] = {pool.submit(function, job): job for job in jobs}
        try:
            for future in as_completed(waiting):
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    name = getattr(function, "__name__", str(function))
                    problem = "a worker process died, probably because memory ran out"
                    raise RunError(name, problem, "", "Use fewer workers.") from error
                if error is not None and not isinstance(error, MedsegError):
                    raise error
                yield waiting[future], error if isinstance(error, MedsegError) else future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def source_key(case: Case, *settings: Any) -> str:
    """Return a hash of the case's files (path, size, time of change) and of the settings they are processed with.

    Raises:
        DataError: a file does not exist.
    """
    try:
        stats = [(str(path.resolve()), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in case.files()]
    except OSError as error:
        raise DataError(error.filename, "the file cannot be read", error.strerror or str(error)) from error
    text = json.dumps([case.id, stats, case.binarize, case.accept, *settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class CaseJob(Protocol):
    """Describe a job that `resume_each` can do: a case, the key of its sources, and the files that it writes."""

    @property
    def case(self) -> Case:
        """Return the case."""

    @property
    def key(self) -> str:
        """Return the key of what the files are made from, see `source_key`."""

    def files(self) -> list[Path]:
        """List the files that the job writes."""


Resumable = TypeVar("Resumable", bound=CaseJob)


@dataclass(frozen=True)
class Resumed:
    """Hold the results of `resume_each`.

    Args:
        notes: what the function returned, by case id, in this run or an earlier one.
        failed: the error of each case that failed.
        reused: the cases of an earlier run.
    """

    notes: dict[str, Any]
    failed: dict[str, str]
    reused: tuple[str, ...]


class Journal:
    """Record the finished cases of a job that writes files, so that it resumes where it was stopped.

    A case counts as finished if it was recorded under the same key and its files have the sizes they had then;
    files are moved into place complete (`medseg.atomic`), so that the size is enough. Lines are only
    appended; one that was being written when the process died is ignored.

    Args:
        path: the journal's file; created at the first `add`.

    Example:
        >>> Journal(Path("nowhere.jsonl")).get("s0001", "key", [])
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, dict[str, Any]] = {}
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
            try:
                entry = json.loads(line)
                self._entries[entry["id"]] = entry
            except (ValueError, KeyError, TypeError):
                continue

    def get(self, id: str, key: str, files: Iterable[Path]) -> Any:
        """Return the note of a case that is finished and whose files exist; else None."""
        entry = self._entries.get(id, {})
        return entry["note"] if entry.get("key") == key and entry.get("sizes") == _sizes(files) else None

    def add(self, id: str, key: str, files: Iterable[Path], note: Any) -> None:
        """Record that a case is finished.

        Raises:
            OutputError: the journal cannot be written.
        """
        entry = {"id": id, "key": key, "sizes": _sizes(files), "note": note}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps(entry))  # a new line first: the last one may be incomplete
        except OSError as error:
            fix = "Free space or choose another path."
            raise OutputError(self.path, "the file cannot be written", str(error), fix) from error
        self._entries[id] = entry

    def compact(self, ids: Iterable[str]) -> None:
        """Rewrite the journal with one line for each of these cases, sorted, so that equal jobs leave equal bytes.

        Raises:
            OutputError: the journal cannot be written.
        """
        lines = [json.dumps(self._entries[id]) for id in sorted(ids)]
        write_text(self.path, "".join(f"{line}\n" for line in lines))


def resume_each(
    function: Callable[[Resumable], Any], jobs: Iterable[Resumable], journal: Journal, workers: int, description: str
) -> Resumed:
    """Do the jobs that the journal does not know as finished, and record them there.

    Args:
        function: returns the note on a job; a `MedsegError` it raises concerns that job alone.
        jobs: what to do it with.
        journal: of the finished jobs.
        workers: processes, see `run_each`.
        description: the name on the progress bar.

    Raises:
        OutputError: a file cannot be written; then those of other cases cannot either.
        RunError: a worker died.
    """
    notes: dict[str, Any] = {}
    remaining = []
    for job in jobs:
        note = journal.get(job.case.id, job.key, job.files())
        if note is None:
            remaining.append(job)
        else:
            notes[job.case.id] = note
    resumed = Resumed(notes, {}, tuple(notes))
    for job, result in run_each(function, remaining, workers, description):
        if isinstance(result, OutputError):
            raise result
        if isinstance(result, MedsegError):
            resumed.failed[job.case.id] = str(result)
        else:
            journal.add(job.case.id, job.key, job.files(), result)
            notes[job.case.id] = result
    return resumed


def _sizes(files: Iterable[Path]) -> list[int]:
    return [path.stat().st_size if path.is_file() else -1 for path in files]
