"""The layers of a volume that windows are still being added to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from medseg.inference.kernels import add_window, compiled
from medseg.inference.windows import Plan


class Slab:
    """Weighted sums of what a network says, layer by layer; layers that are finished leave it.

    Args:
        plan: where the windows lie.
        importance: how much each voxel of a window counts, `(rk, ri, rj)`.
        head: what makes logits of the mean of a layer's features, once it is finished; None where the sums
            are logits.
    """

    def __init__(
        self, plan: Plan, importance: torch.Tensor, head: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> None:
        self.plan, self.importance, self.head = plan, importance, head
        self._live: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._spare: list[torch.Tensor] = []  # new memory has to be got from the system, page by page
        self._past: list[torch.Tensor] = []
        self._next = 0

    def add(self, start: tuple[int, int, int], tile: torch.Tensor) -> None:
        """Add what the network says of one window, `(rk, ri, rj, C)`."""
        rows, inner_rows = _meet(start[1], self.plan.roi[1], self.plan.shape[1])
        columns, inner_columns = _meet(start[2], self.plan.roi[2], self.plan.shape[2])
        layers, inner = _meet(start[0], self.plan.roi[0], self.plan.shape[0])
        for k, at in zip(range(layers.start, layers.stop), range(inner.start, inner.stop), strict=True):
            if self.plan.single:
                self._live[k] = tile[at, inner_rows, inner_columns], self.importance.new_empty(0)
                continue
            if k not in self._live:
                self._live[k] = self._empty(tile), self.importance.new_zeros(self.plan.shape[1:])
            start_inside = inner_rows.start, inner_columns.start
            add_window(*self._live[k], tile[at], self.importance[at], rows, columns, start_inside)

    def _empty(self, tile: torch.Tensor) -> torch.Tensor:
        shape = (*self.plan.shape[1:], tile.shape[-1])
        sums = self._spare.pop() if self._spare else tile.new_empty(shape, dtype=torch.float32)
        return sums if compiled(tile) else sums.zero_()

    def finished(self, until: int) -> Iterator[tuple[int, torch.Tensor, torch.Tensor | None]]:
        """The layers below `until`, which no later window touches: index, sums `(I, J, C)`, weights `(I, J)`.

        The memory of a layer is used again when the second one after it is asked for.
        """
        while self._next < until:
            sums, weights = self._live.pop(self._next)
            if self.plan.single:
                yield self._next, sums.contiguous(), None
            elif self.head is None:
                yield self._next, sums, weights
                self._spare.extend(self._past)
                self._past = [sums]
            else:
                logits = self.head(sums.div_(weights[..., None]))
                self._spare.append(sums)
                yield self._next, logits, None
            self._next += 1


def _meet(start: int, length: int, size: int) -> tuple[slice, slice]:
    """Where a window lies within the volume, and that part within the window."""
    low, high = max(start, 0), min(start + length, size)
    return slice(low, high), slice(low - start, high - start)
