"""Many scans, one after the other, while the next is read and the last is written; within a budget of memory."""

from __future__ import annotations

import glob
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from medseg import resources
from medseg.atomic import remove_partial
from medseg.bundle.outputs import Outputs, kept_mask
from medseg.bundle.pipeline import Outcome, overlapped
from medseg.bundle.predict import LoadedScan, Prediction, Predictor
from medseg.data import read_grid, read_volume
from medseg.data.nifti import stem
from medseg.errors import DataError, MedsegError
from medseg.grid import Grid
from medseg.inference import StreamingInferer, memory


@dataclass(frozen=True)
class Segmented:
    """What was done for one scan.

    Args:
        mask: its label map.
        seconds: how long reading and network took; None where the mask was there already.
        beside: what was written beside it.
    """

    mask: Path
    seconds: float | None
    beside: tuple[Path, ...]


@dataclass(frozen=True)
class _Work:
    prediction: Prediction | None
    hu: npt.NDArray[Any] | None
    loaded: LoadedScan | None


class Segmentation:
    """Scans to masks, with what is wanted beside them.

    Args:
        predictor: the bundle.
        targets: the mask of each scan.
        outputs: what is wanted beside the masks.
        overwrite: whether masks that are there and whole are made again.
        budget: bytes of RAM, and of GPU memory where one is used, that may be held; by default what is free.
        progress: whether to show a bar for the windows of each scan, where somebody looks.
    """

    def __init__(
        self,
        predictor: Predictor,
        targets: Mapping[Path, Path],
        outputs: Outputs | None = None,
        overwrite: bool = False,
        budget: int | None = None,
        progress: bool = False,
    ) -> None:
        self.predictor, self.targets, self.outputs = predictor, dict(targets), outputs or Outputs()
        self.overwrite = overwrite
        self.options = replace(predictor.options, confidence=self.outputs.stats, progress=progress)
        self.refused: dict[Path, MedsegError] = {}
        self.ahead = len(self.targets) > 1
        self.need: memory.Need | None = None
        self._plan(budget)

    def _plan(self, budget: int | None) -> None:
        """Choose the batch and whether to read ahead, for all scans; those that do not fit are refused alone."""
        device = self.predictor.device
        gpu = resources.free_gpu_memory(device)
        ram: int | None = resources.ram().free
        if budget is not None:
            ram, gpu = budget - resources.process_ram(), None if gpu is None else budget
        needs, batches = [], []
        for scan in self.targets:
            try:
                shapes = shapes_of(self.predictor, read_grid(scan))
                if shapes is None:
                    return
                fitted = memory.fit(replace(shapes, ahead=self.ahead), ram, gpu, scan)
            except MedsegError as error:
                self.refused[scan] = error
                continue
            self.ahead = self.ahead and fitted.ahead
            batches.append(fitted.batch)
            needs.append(fitted)
        if batches:
            self.options = replace(self.options, sw_batch_size=min(batches))
            final = [memory.estimate(replace(one, batch=min(batches), ahead=self.ahead)) for one in needs]
            self.need = max(final, key=lambda need: need.ram)

    def run(self) -> Generator[Outcome[Path, Segmented]]:
        """Segment all scans; what becomes of each, in order. An error of one stops no other.

        Every error comes as a MedsegError that names the scan or the file.
        """
        for mask in self.targets.values():
            first, _, rest = mask.name.partition(".")
            for left in mask.parent.glob(f".{glob.escape(first)}.*.partial.{glob.escape(rest)}"):
                left.unlink(missing_ok=True)  # of a process that was killed
            if mask.with_name(stem(mask)).is_dir() and self.outputs.split:
                remove_partial(mask.with_name(stem(mask)))
        for outcome in overlapped(self.targets, self._read, self._compute, self._write, self.ahead):
            if outcome.error is None:
                yield outcome
                continue
            error = named(outcome.error, outcome.item)
            if error is not outcome.error and error.__cause__ is None:
                error.__cause__ = outcome.error
            yield Outcome(outcome.item, None, error)

    def _read(self, scan: Path) -> _Work:
        if scan in self.refused:
            raise self.refused[scan]
        mask, predictor = self.targets[scan], self.predictor
        kept = None if self.overwrite else kept_mask(mask, scan, predictor.labels, predictor.only)
        if kept is None:
            return _Work(None, None, predictor.load(scan, keep_hu=self.outputs.need_hu))
        missing = self.outputs.missing(mask, predictor.only or predictor.labels.structures)
        return _Work(kept, read_volume(scan)[0] if missing and self.outputs.need_hu else None, None)

    def _compute(self, work: _Work) -> _Work:
        if work.loaded is None:
            return work
        return _Work(self.predictor.segment(work.loaded, self.options), work.loaded.hu, work.loaded)

    def _write(self, scan: Path, work: _Work) -> Segmented:
        if work.prediction is None:
            raise DataError(scan, "must have been segmented before it is written", "nothing")
        mask, made = self.targets[scan], work.loaded is not None
        if made:
            work.prediction.save(mask)
        beside = self.outputs.write(work.prediction, work.hu, mask)
        return Segmented(mask, work.prediction.seconds if made else None, tuple(beside))


def shapes_of(predictor: Predictor, grid: Grid) -> memory.Shapes | None:
    """What the memory of a scan on that grid depends on; None for an inferer that nothing is known of."""
    inferer = predictor.inferer
    if not isinstance(inferer, StreamingInferer):
        return None
    roi = tuple(inferer.roi[1:]) if inferer.slices else tuple(inferer.roi)
    batch = inferer.batch_for(predictor.network, predictor.channels, predictor.device)
    network = network_shape(grid, predictor.spacing)
    plane = [size for axis, size in enumerate(network) if not inferer.slices or axis != inferer.axis]
    first = predictor.channels
    return memory.Shapes(
        source=grid.shape,
        network=network,
        roi=roi,
        batch=batch,
        classes=predictor.classes,
        channels=first,
        width=memory.width_of(predictor.network, first, roi),
        parameters=sum(one.numel() * one.element_size() for one in predictor.network.parameters()),
        single=all(size <= window for size, window in zip(plane, roi, strict=True)),
        on_gpu=predictor.device.type == "cuda",
    )


def network_shape(grid: Grid, spacing: Any) -> tuple[int, int, int]:
    """The shape of a scan once it is turned to RAS and resampled to `spacing`, mm; below 0 leaves an axis as it is.

    >>> import numpy as np
    >>> network_shape(Grid((10, 20, 30), np.diag([1.5, 1.5, 3.0, 1.0])), [3.0, 3.0, -1])
    (6, 10, 30)
    """
    axes = grid.axes
    order = [next(i for i, letter in enumerate(axes) if letter in pair) for pair in ("LR", "PA", "IS")]
    wanted = list(spacing) if spacing is not None else [-1, -1, -1]
    sizes = []
    for old, target in zip(order, wanted, strict=True):
        size, step = grid.shape[old], grid.spacing[old]
        sizes.append(size if target is None or target <= 0 else round((size - 1) * step / target + 1))
    return sizes[0], sizes[1], sizes[2]


def named(error: BaseException, scan: Path) -> MedsegError:
    """An error as one of ours, whatever it was."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, MedsegError):
            return found
        found = found.__cause__
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        return DataError(
            scan, "needs less memory than there is", text, "Give --memory, a smaller batch (--set), or crop the scan."
        )
    return DataError(
        scan, "could not be segmented", f"{type(error).__name__}: {text}", "medseg --traceback predict ... shows where."
    )
