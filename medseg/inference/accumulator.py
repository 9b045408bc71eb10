"""The layers of a volume that windows are still being added to."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch

from medseg.inference.buffers import empty_apart
from medseg.inference.final_conv import Head
from medseg.inference.kernels import add_window, compiled
from medseg.inference.windows import Plan

logger = logging.getLogger(__name__)


class WindowAccumulator:
    """Weighted sums of what a network says, layer by layer; layers that are finished leave it.

    It lies on `device` while it fits. When memory runs out there, what it holds moves to RAM, a line in the log says
    so, and it goes on.

    Args:
        plan: where the windows lie.
        importance: how much each voxel of a window counts, `(rk, ri, rj)`.
        head: what makes logits of the mean of a layer's features, once it is finished; None where the sums
            are logits.
        device: where it lies; by default where the importance does.
        held: how many layers whoever takes them holds at once, the last one included.
    """

    def __init__(
        self,
        plan: Plan,
        importance: torch.Tensor,
        head: Head | None = None,
        device: torch.device | None = None,
        held: int = 2,
    ) -> None:
        self.device = importance.device if device is None else device
        self.plan, self.importance, self.head, self.held = plan, importance.to(self.device), head, held
        self._live: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._spare: list[tuple[torch.Tensor, torch.Tensor]] = []  # new memory is got from the system page by page
        self._past: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._kept: list[torch.Tensor] = []
        self._next = 0

    def add(self, start: tuple[int, int, int], tile: torch.Tensor) -> None:
        """Add what the network says of one window, `(rk, ri, rj, C)`."""
        layers, inner = _meet(start[0], self.plan.roi[0], self.plan.shape[0])
        for k, at in zip(range(layers.start, layers.stop), range(inner.start, inner.stop), strict=True):
            try:
                self._add(k, start, tile[at], at)
            except torch.OutOfMemoryError:  # nothing was added: what needs memory comes before
                self.to_ram()
                self._add(k, start, tile[at], at)

    def _add(self, k: int, start: tuple[int, int, int], tile: torch.Tensor, at: int) -> None:
        rows, inner_rows = _meet(start[1], self.plan.roi[1], self.plan.shape[1])
        columns, inner_columns = _meet(start[2], self.plan.roi[2], self.plan.shape[2])
        tile = tile.to(self.device)
        if self.plan.single:
            self._live[k] = tile[inner_rows, inner_columns], self.importance.new_empty(0)
            return
        if k not in self._live:
            self._live[k] = self._empty(tile)
        start_inside = inner_rows.start, inner_columns.start
        add_window(*self._live[k], tile, self.importance[at], rows, columns, start_inside)

    def _empty(self, tile: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums and weights to add to; the first time, memory for all layers of a window is taken at once."""
        if not self._spare:
            count = 1 if self._live else min(self.plan.roi[0], self.plan.shape[0])
            shape = (count, *self.plan.shape[1:])
            some = [empty_apart(one, tile.device) for one in ((*shape, tile.shape[-1]), shape)]
            self._spare = list(zip(*some, strict=True))
        sums, weights = self._spare.pop()
        return (sums if compiled(tile) else sums.zero_()), weights.zero_()

    def to_ram(self) -> None:
        """Go on in RAM.

        Raises:
            torch.OutOfMemoryError: it lies there already.
        """
        if self.device.type == "cpu":
            raise torch.OutOfMemoryError("no memory left, neither on the GPU nor in RAM")
        logger.warning("The memory of %s is full: what windows are added to goes on in RAM", self.device)
        self.device = torch.device("cpu")
        self._spare, self._past, self._kept = [], [], []
        self.importance = self.importance.cpu()
        self._live = {k: (sums.cpu(), weights.cpu()) for k, (sums, weights) in self._live.items()}
        torch.cuda.empty_cache()

    def finished(self, until: int) -> Iterator[tuple[int, torch.Tensor, torch.Tensor | None]]:
        """The layers below `until`, which no later window touches: index, sums `(I, J, C)`, weights `(I, J)`.

        Layers that no window touched at all are left out. The memory of a layer is used again when the second one
        after it is asked for, or at the end of the next batch.
        """
        while self._next < until:
            number, self._next = self._next, self._next + 1
            if number not in self._live:
                continue
            sums, weights = self._live.pop(number)
            if self.plan.single:
                last = self._next == until
                yield number, self._apart(sums) if last else sums.contiguous(), None
            elif self.head is None:
                yield number, sums, weights
                self._spare.extend(self._past)
                self._past = [(sums, weights)] if sums.device == self.device else []
            else:
                logits = self._logits(sums.div_(weights[..., None]))
                self._spare += [(sums, weights)] if sums.device == self.device else []
                yield number, logits, None

    def _logits(self, features: torch.Tensor) -> torch.Tensor:
        """What the head makes of a layer, in a place that nobody holds any more."""
        if self.head is None:
            return features
        out = self._kept.pop(0) if len(self._kept) >= self.held else None
        try:
            if out is None or out.device != features.device:
                out = empty_apart((*features.shape[:-1], self.head.classes), features.device)
            logits = self.head(features, out)
        except torch.OutOfMemoryError:
            self.to_ram()
            logits = self.head(features.cpu())
        self._kept.append(logits)
        return logits

    def _apart(self, sums: torch.Tensor) -> torch.Tensor:
        """The last layer of a batch in memory of its own: whoever holds it holds on to none of the others."""
        if sums.is_contiguous() and sums.untyped_storage().nbytes() == sums.nbytes:
            return sums
        spare = (
            self._kept.pop(0) if len(self._kept) > 1 else torch.empty_like(sums, memory_format=torch.contiguous_format)
        )
        if (spare.shape, spare.dtype, spare.device) != (sums.shape, sums.dtype, sums.device):
            spare = torch.empty_like(sums, memory_format=torch.contiguous_format)
        self._kept.append(spare.copy_(sums))
        return spare


def _meet(start: int, length: int, size: int) -> tuple[slice, slice]:
    """Where a window lies within the volume, and that part within the window."""
    low, high = max(start, 0), min(start + length, size)
    return slice(low, high), slice(low - start, high - start)
