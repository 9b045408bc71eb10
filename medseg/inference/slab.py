"""The layers of a volume that windows are still being added to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

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
        self._live: dict[int, tuple[torch.Tensor, torch.Tensor | None]] = {}
        self._next = 0

    def add(self, start: tuple[int, int, int], tile: torch.Tensor) -> None:
        """Add what the network says of one window, `(rk, ri, rj, C)`, float32."""
        rows, inner_rows = _meet(start[1], self.plan.roi[1], self.plan.shape[1])
        columns, inner_columns = _meet(start[2], self.plan.roi[2], self.plan.shape[2])
        layers, inner = _meet(start[0], self.plan.roi[0], self.plan.shape[0])
        for k, at in zip(range(layers.start, layers.stop), range(inner.start, inner.stop), strict=True):
            part = tile[at, inner_rows, inner_columns]
            if self.plan.single:
                self._live[k] = part, None
                continue
            weights = self.importance[at, inner_rows, inner_columns]
            if k not in self._live:
                shape = self.plan.shape[1:]
                self._live[k] = part.new_zeros((*shape, part.shape[-1])), weights.new_zeros(shape)
            sums, counts = self._live[k]
            sums[rows, columns].addcmul_(part, weights[..., None])
            if counts is not None:
                counts[rows, columns] += weights

    def finished(self, until: int) -> Iterator[tuple[int, torch.Tensor, torch.Tensor | None]]:
        """The layers below `until`, which no later window touches: index, sums `(I, J, C)`, weights `(I, J)`."""
        while self._next < until:
            sums, weights = self._live.pop(self._next)
            if self.head is not None:
                sums, weights = self.head(sums if weights is None else sums.div_(weights[..., None])), None
            yield self._next, sums.contiguous(), weights
            self._next += 1


def _meet(start: int, length: int, size: int) -> tuple[slice, slice]:
    """Where a window lies within the volume, and that part within the window."""
    low, high = max(start, 0), min(start + length, size)
    return slice(low, high), slice(low - start, high - start)
