"""Add up overlapping windows, layer by layer."""

from __future__ import annotations

import logging
import math
import mmap
from collections.abc import Iterator, Sequence

import torch

from medseg.inference.final_conv import FinalConv
from medseg.inference.kernels import add_window, uses_numba
from medseg.inference.windows import WindowPlan

logger = logging.getLogger(__name__)

_Buffers = tuple[torch.Tensor, torch.Tensor]  # sums and weights of a layer


def empty_mapped(shape: Sequence[int], device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return a tensor to write into; in RAM it lies in an anonymous memory map, not in the allocator's heap.

    In the heap, buffers that live long leave holes between the blocks that a network allocates and frees, into which
    no large block fits, and the process grows. On a GPU torch's caching allocator takes care of that.

    >>> empty_mapped((2, 3), torch.device("cpu"), torch.bfloat16).shape
    torch.Size([2, 3])
    """
    shape = tuple(int(size) for size in shape)
    count = math.prod(shape)
    if device.type != "cpu" or not count:
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, dtype.itemsize * count), dtype=dtype, count=count).view(shape)


class WindowAccumulator:
    """Hold weighted sums of logits for the layers that windows are still added to; finished layers leave it.

    It lies on `device` while it fits. When memory runs out there, its buffers move to RAM with a line in the log,
    and the work continues.

    Args:
        plan: where the windows lie.
        importance: weight of each voxel of a window, `(rk, ri, rj)`.
        final_conv: turns the mean features of a finished layer into logits; None where the sums are logits.
        device: where the buffers lie; by default where the importance does.
        live: how many layers the caller uses at once, the last one included.
    """

    def __init__(
        self,
        plan: WindowPlan,
        importance: torch.Tensor,
        final_conv: FinalConv | None = None,
        device: torch.device | None = None,
        live: int = 2,
    ) -> None:
        self.device = importance.device if device is None else device
        self.plan = plan
        self.importance = importance.to(self.device)
        self.final_conv = final_conv
        self.live = live
        # The operating system hands out new memory page by page, which takes longer than adding a window: buffers
        # of finished layers are used again.
        self._open: dict[int, _Buffers] = {}
        self._free: list[_Buffers] = []
        self._yielded: list[_Buffers] = []
        self._logits: list[torch.Tensor] = []
        self._next = 0

    def add(self, start: tuple[int, int, int], tile: torch.Tensor) -> None:
        """Add the logits of one window, `(rk, ri, rj, C)`."""
        layers, inner = _intersect(start[0], self.plan.roi[0], self.plan.shape[0])
        for k, index in zip(range(layers.start, layers.stop), range(inner.start, inner.stop), strict=True):
            try:
                self._add(k, start, tile[index], index)
            except torch.OutOfMemoryError:  # nothing was added yet: memory is allocated before
                self.to_ram()
                self._add(k, start, tile[index], index)

    def _add(self, k: int, start: tuple[int, int, int], tile: torch.Tensor, index: int) -> None:
        rows, inner_rows = _intersect(start[1], self.plan.roi[1], self.plan.shape[1])
        columns, inner_columns = _intersect(start[2], self.plan.roi[2], self.plan.shape[2])
        tile = tile.to(self.device)
        if self.plan.single:
            self._open[k] = tile[inner_rows, inner_columns], self.importance.new_empty(0)
            return
        if k not in self._open:
            self._open[k] = self._new_buffers(tile)
        corner = inner_rows.start, inner_columns.start
        add_window(*self._open[k], tile, self.importance[index], rows, columns, corner)

    def _new_buffers(self, tile: torch.Tensor) -> _Buffers:
        """Return sums and weights to add to; the first time, memory for all layers of a window is allocated at once."""
        if not self._free:
            count = 1 if self._open else min(self.plan.roi[0], self.plan.shape[0])
            shape = (count, *self.plan.shape[1:])
            sums = empty_mapped((*shape, tile.shape[-1]), tile.device)
            self._free = list(zip(sums, empty_mapped(shape, tile.device), strict=True))
        layer_sums, weights = self._free.pop()
        # The compiled loops overwrite sums whose weight is 0, torch adds to them.
        return (layer_sums if uses_numba(tile) else layer_sums.zero_()), weights.zero_()

    def to_ram(self) -> None:
        """Move all buffers to RAM.

        Raises:
            torch.OutOfMemoryError: they lie there already.
        """
        if self.device.type == "cpu":
            raise torch.OutOfMemoryError("no memory left, neither on the GPU nor in RAM")
        logger.warning("The memory of %s is full: windows are added up in RAM from here on", self.device)
        self.device = torch.device("cpu")
        self._free = []
        self._yielded = []
        self._logits = []
        self.importance = self.importance.cpu()
        self._open = {k: (sums.cpu(), weights.cpu()) for k, (sums, weights) in self._open.items()}
        torch.cuda.empty_cache()

    def finished(self, end: int) -> Iterator[tuple[int, torch.Tensor, torch.Tensor | None]]:
        """Yield the layers below `end`, which no later window touches: index, sums `(I, J, C)`, weights `(I, J)`.

        Layers that no window touched are left out. The memory of a layer is used again when the second one after
        it is asked for, or at the end of the next batch.
        """
        while self._next < end:
            k = self._next
            self._next += 1
            if k not in self._open:
                continue
            sums, weights = self._open.pop(k)
            if self.plan.single:
                yield k, self._own_memory(sums) if self._next == end else sums.contiguous(), None
            elif self.final_conv is None:
                yield k, sums, weights
                self._free.extend(self._yielded)
                self._yielded = [(sums, weights)] if sums.device == self.device else []
            else:
                logits = self._apply_final_conv(self.final_conv, sums.div_(weights[..., None]))
                self._free += [(sums, weights)] if sums.device == self.device else []
                yield k, logits, None

    def _apply_final_conv(self, final_conv: FinalConv, features: torch.Tensor) -> torch.Tensor:
        """Return the logits of a layer, in a buffer that the caller no longer uses."""
        out = self._logits.pop(0) if len(self._logits) >= self.live else None
        try:
            if out is None or out.device != features.device:
                out = empty_mapped((*features.shape[:-1], final_conv.classes), features.device)
            logits = final_conv(features, out)
        except torch.OutOfMemoryError:
            self.to_ram()
            logits = final_conv(features.cpu())
        self._logits.append(logits)
        return logits

    def _own_memory(self, sums: torch.Tensor) -> torch.Tensor:
        """Copy the last layer of a batch, so that a caller who keeps it does not keep the memory of the whole batch."""
        if sums.is_contiguous() and sums.untyped_storage().nbytes() == sums.nbytes:
            return sums
        buffer = self._logits.pop(0) if len(self._logits) > 1 else None
        layout = sums.shape, sums.dtype, sums.device
        if buffer is None or (buffer.shape, buffer.dtype, buffer.device) != layout:
            buffer = torch.empty_like(sums, memory_format=torch.contiguous_format)
        self._logits.append(buffer.copy_(sums))
        return buffer


def _intersect(start: int, length: int, size: int) -> tuple[slice, slice]:
    """Return the part of the volume that a window covers, and the same part within the window."""
    low, high = max(start, 0), min(start + length, size)
    return slice(low, high), slice(low - start, high - start)
