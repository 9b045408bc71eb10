"""Many scans or slices, one after the other, while the next is read and the last is written, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from medseg import resources
from medseg.bundle.predict import LoadedScan, Predictor
from medseg.bundle.prediction import Prediction, SlicePrediction
from medseg.data import read_grid
from medseg.errors import DataError, MedsegError
from medseg.grid import Grid
from medseg.inference import StreamingInferer, memory

if TYPE_CHECKING:
    from medseg.bundle.slice_writer import SliceWriter
    from medseg.bundle.volume_writer import VolumeWriter

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Computed = TypeVar("Computed")
Written = TypeVar("Written")
AnyPrediction = Prediction | SlicePrediction


@dataclass(frozen=True)
class Outcome(Generic[Item, Written]):
    """What became of one item.

    Args:
        item: the item.
        result: what `write` returned; None after an error.
        error: what went wrong, in any of the three steps.
    """

    item: Item
    result: Written | None
    error: Exception | None = None


def run_pipelined(
    items: Iterable[Item],
    read: Callable[[Item], Loaded],
    compute: Callable[[Loaded], Computed],
    write: Callable[[Item, Computed], Written],
    ahead: bool = True,
) -> Iterator[Outcome[Item, Written]]:
    """Read the next item while this one is computed and the last one is written; outcomes come in order.

    `compute` runs in the caller's thread and nowhere else. At most two items are in memory between reading and
    computing, and one between computing and writing. An item that fails stops no other. When the caller stops, or
    Ctrl-C does, what is being written is finished, and nothing new is begun.

    Args:
        items: what to work on.
        read: runs in a thread of its own.
        compute: runs in the caller's.
        write: runs in a third.
        ahead: whether the three overlap; without it they take turns, in less memory.

    Example:
        >>> outcomes = run_pipelined([1, 2], lambda x: x * 10, lambda x: x + 1, lambda item, x: (item, x))
        >>> [outcome.result for outcome in outcomes]
        [(1, 11), (2, 21)]
    """
    if not ahead:
        for item in items:
            try:
                yield Outcome(item, write(item, compute(read(item))))
            except Exception as error:
                yield Outcome(item, None, error)
        return
    reader, writer = ThreadPoolExecutor(1, "medseg-read"), ThreadPoolExecutor(1, "medseg-write")
    try:
        remaining = iter(items)
        next_read = _begin(reader, read, remaining)
        writing: tuple[Item, Future[Written]] | None = None
        while next_read is not None:
            item, future = next_read
            failure: Exception | None = None
            try:
                loaded = future.result()
            except Exception as error:
                failure = error
            next_read = _begin(reader, read, remaining)
            if failure is None:
                try:
                    computed = compute(loaded)
                except Exception as error:
                    failure = error
                del loaded  # its memory is that of a scan
            if writing is not None:
                yield _finish(*writing)
                writing = None
            if failure is not None:
                yield Outcome(item, None, failure)
                continue
            writing = item, writer.submit(write, item, computed)
            del computed
        if writing is not None:
            yield _finish(*writing)
    finally:
        reader.shutdown(wait=True, cancel_futures=True)
        writer.shutdown(wait=True, cancel_futures=True)


def _begin(
    reader: ThreadPoolExecutor, read: Callable[[Item], Loaded], remaining: Iterator[Item]
) -> tuple[Item, Future[Loaded]] | None:
    for item in remaining:
        return item, reader.submit(read, item)
    return None


def _finish(item: Item, future: Future[Written]) -> Outcome[Item, Written]:
    try:
        return Outcome(item, future.result())
    except Exception as error:
        return Outcome(item, None, error)


@dataclass(frozen=True)
class ScanResult:
    """What was written for one scan or slice.

    Args:
        mask: its label map.
        prediction: what the label map holds.
        is_new: whether it was segmented now; False for a complete mask of an earlier call.
        files: what was written beside it.
    """

    mask: Path
    prediction: AnyPrediction
    is_new: bool = True
    files: tuple[Path, ...] = ()


class BatchPredictor:
    """Segment many scans or slices: read, compute and write in three threads.

    Args:
        predictor: the bundle.
        writer: what to segment, and where the results go.
        overwrite: whether complete masks that are there are segmented again.
        budget: bytes of RAM, and of GPU memory where one is used, to stay below; by default what is free.
        progress: whether to show a progress bar for the windows of each scan, in a terminal.

    Attributes:
        need: the most memory that a scan will need; None if that cannot be estimated.
        counts: scans that were `segmented`, `existing` or `failed` so far.

    Raises:
        OutputError, DataError: see the writer's `begin`.
    """

    def __init__(
        self,
        predictor: Predictor,
        writer: VolumeWriter | SliceWriter,
        overwrite: bool = False,
        budget: int | None = None,
        progress: bool = False,
    ) -> None:
        self.predictor = predictor
        self.writer = writer
        self.overwrite = overwrite
        self.options = replace(predictor.options, confidence=writer.needs_confidence, progress=progress)
        self.need: memory.Need | None = None
        self.counts: Counter[str] = Counter()
        self._items: list[Any] = list(writer.items)
        self._refused: dict[Any, MedsegError] = {}
        self._ahead = len(self._items) > 1
        writer.begin()
        if not predictor.slices:
            self._plan(budget)

    def _plan(self, budget: int | None) -> None:
        """Choose one batch size for all scans, and whether to read ahead; refuse those alone that do not fit."""
        gpu = resources.free_gpu_memory(self.predictor.device)
        ram = resources.ram().free
        process = resources.process_ram() if budget is not None else 0
        if budget is not None:
            ram = budget - process
            gpu = None if gpu is None else budget
        plans = []
        for scan in self._items:
            try:
                shapes = shapes_of(self.predictor, read_grid(scan, self.predictor.accept))
                if shapes is None:
                    return
                plan = memory.fit(replace(shapes, ahead=self._ahead), ram, gpu, scan, process)
            except MedsegError as error:
                self._refused[scan] = error
                continue
            self._ahead = self._ahead and plan.ahead
            plans.append(plan)
        if plans:
            batch = min(plan.batch for plan in plans)
            self.options = replace(self.options, sw_batch_size=batch)
            needs = [memory.estimate(replace(plan, batch=batch, ahead=self._ahead)) for plan in plans]
            self.need = max(needs, key=lambda need: need.ram)

    def run(self) -> Generator[Outcome[Any, ScanResult]]:
        """Segment all, and yield what becomes of each, in order; an error of one stops no other.

        Every error is a MedsegError that names the scan or the file.
        """
        for outcome in run_pipelined(self._items, self._read, self._compute, self._write, self._ahead):
            if outcome.error is not None:
                self.counts["failed"] += 1
                error = naming_error(outcome.error, outcome.item)
                if error is not outcome.error and error.__cause__ is None:
                    error.__cause__ = outcome.error
                yield Outcome(outcome.item, None, error)
                continue
            if outcome.result is not None:
                self.counts["segmented" if outcome.result.is_new else "existing"] += 1
            yield outcome
        self.writer.close()

    def _read(self, item: Any) -> LoadedScan | AnyPrediction:
        refusal = self._refused.get(item) if isinstance(item, Path) else None
        if refusal is not None:
            raise refusal
        existing = None if self.overwrite else self.writer.existing(item)
        return existing or self.predictor.load(item, keep_image=self.writer.needs_image)

    def _compute(self, work: LoadedScan | AnyPrediction) -> tuple[AnyPrediction, bool]:
        if isinstance(work, LoadedScan):
            return self.predictor.segment(work, self.options), True
        return work, False

    def _write(self, item: Any, computed: tuple[AnyPrediction, bool]) -> ScanResult:
        return self.writer.write(item, *computed)


def shapes_of(predictor: Predictor, grid: Grid) -> memory.Shapes | None:
    """Return what the memory of a scan on that grid depends on; None for an inferer of another kind."""
    inferer = predictor.inferer
    if not isinstance(inferer, StreamingInferer):
        return None
    roi = tuple(inferer.roi[1:]) if inferer.slices else tuple(inferer.roi)
    network = network_shape(grid, predictor.spacing)
    plane = [size for axis, size in enumerate(network) if not inferer.slices or axis != inferer.axis]
    return memory.Shapes(
        source=grid.shape,
        network=network,
        roi=roi,
        batch=inferer.batch_for(predictor.network, predictor.channels, predictor.device),
        classes=predictor.classes,
        channels=predictor.channels,
        width=memory.width_of(predictor.network, predictor.channels, roi),
        parameters=sum(weight.numel() * weight.element_size() for weight in predictor.network.parameters()),
        single=all(size <= window for size, window in zip(plane, roi, strict=True)),
        on_gpu=predictor.device.type == "cuda",
    )


def network_shape(grid: Grid, spacing: Sequence[float] | None) -> tuple[int, int, int]:
    """Return the shape of a scan once it is turned to RAS and resampled to `spacing`, mm; below 0 keeps an axis.

    Example:
        >>> import numpy as np
        >>> network_shape(Grid((10, 20, 30), np.diag([1.5, 1.5, 3.0, 1.0])), [3.0, 3.0, -1])
        (6, 10, 30)
    """
    axes = grid.axes
    order = [next(i for i, letter in enumerate(axes) if letter in pair) for pair in ("LR", "PA", "IS")]
    sizes = []
    for axis, target in zip(order, spacing if spacing is not None else [-1, -1, -1], strict=True):
        size, step = grid.shape[axis], grid.spacing[axis]
        sizes.append(size if target is None or target <= 0 else round((size - 1) * step / target + 1))
    return sizes[0], sizes[1], sizes[2]


def naming_error(error: BaseException, item: Any) -> MedsegError:
    """Return an error as one of ours that names the scan."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MedsegError):
            return cause
        cause = cause.__cause__
    source = item["image"] if isinstance(item, dict) else item
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        fix = "Give --memory, a smaller batch (--set inferer#sw_batch_size=1), or crop the scan."
        return DataError(source, "the memory is not enough", text, fix)
    fix = "medseg --traceback predict ... shows where."
    return DataError(source, "segmenting failed", f"{type(error).__name__}: {text}", fix)
