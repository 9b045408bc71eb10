"""Plan and cut the windows of a volume, front to back along one axis.

Positions and weights are those of MONAI's `sliding_window_inference`; the order is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from monai.data.utils import compute_importance_map
from monai.utils import BlendMode


@dataclass(frozen=True)
class WindowPlan:
    """The windows of a volume `(K, I, J)` whose layers are finished one after the other along the first axis.

    Args:
        shape: of the volume.
        roi: of a window; 1 along the first axis for a 2D network.
        starts: where windows begin on each axis; negative where the volume is smaller and is padded.
    """

    shape: tuple[int, int, int]
    roi: tuple[int, int, int]
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    @classmethod
    def of(cls, shape: Sequence[int], roi: Sequence[int], overlap: Sequence[float]) -> WindowPlan:
        """Return the plan that MONAI makes for this overlap (share of a window, by axis)."""
        starts = [_starts(*axis) for axis in zip(shape, roi, overlap, strict=True)]
        k, i, j = shape
        rk, ri, rj = roi
        return cls((k, i, j), (rk, ri, rj), (starts[0], starts[1], starts[2]))

    def narrowed(self, box: Sequence[tuple[int, int]]) -> WindowPlan:
        """Return the windows that touch a box, `(first, end)` by axis: without the others, nothing in it changes."""
        starts = [
            tuple(start for start in axis if start < end and start + length > first)
            for axis, length, (first, end) in zip(self.starts, self.roi, box, strict=True)
        ]
        return replace(self, starts=(starts[0], starts[1], starts[2]))

    def every(self, step: int) -> WindowPlan:
        """Return every `step`-th window along the first axis, and always the last one."""
        layers = self.starts[0]
        return replace(self, starts=(tuple(dict.fromkeys((*layers[::step], layers[-1]))), *self.starts[1:]))

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Yield the first voxel of each window, front to back."""
        yield from product(*self.starts)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.starts[0]) * len(self.starts[1]) * len(self.starts[2])

    @property
    def box(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """The full volume, as first and end by axis."""
        return (0, self.shape[0]), (0, self.shape[1]), (0, self.shape[2])

    @property
    def single(self) -> bool:
        """Whether each layer is covered by a single window."""
        layers, rows, columns = (len(starts) == 1 for starts in self.starts)
        return rows and columns and (self.roi[0] == 1 or layers)

    def importance(self, mode: str, sigma_scale: float, device: torch.device) -> torch.Tensor:
        """Return the weight of each voxel of a window, `(rk, ri, rj)`."""
        dims = 1 if self.roi[0] == 1 else 0  # 2D windows are weighted within the slice
        weights = compute_importance_map(
            self.roi[dims:], mode=BlendMode(mode), sigma_scale=sigma_scale, device=device, dtype=torch.float32
        )
        return torch.as_tensor(weights).reshape(self.roi)


def _starts(size: int, roi: int, overlap: float) -> tuple[int, ...]:
    if size <= roi:
        return (-((roi - size) // 2),)
    step = max(1, int(roi * (1 - overlap)))
    count = -(-(size - roi) // step) + 1
    return tuple(dict.fromkeys(min(index * step, size - roi) for index in range(count)))


class Layers:
    """Give the layers of a volume `(C, K, I, J)`, each contiguous, whatever the memory layout of the volume.

    Where layers lie across the memory layout, each cache line holds one number of a layer, and beside it those of the
    next layers: so a block of layers is transposed at once, and the volume is never copied.

    Args:
        volume: the volume.
        block_size: how many layers are transposed at once.
    """

    def __init__(self, volume: torch.Tensor, block_size: int = 16) -> None:
        self.volume = volume
        self.block_size = block_size
        self._blocks: dict[int, torch.Tensor] = {}

    def __getitem__(self, k: int) -> torch.Tensor:
        """Return layer `k`, or the nearest one inside the volume, `(C, 1, I, J)`."""
        k = min(max(k, 0), self.volume.shape[1] - 1)
        if self.volume.stride(1) != 1:
            return self.volume[:, k : k + 1]
        number, index = divmod(k, self.block_size)
        if number not in self._blocks:
            # Context reaches back into the block before, never further.
            for passed in [block for block in self._blocks if block < number - 1]:
                del self._blocks[passed]
            first = number * self.block_size
            block = self.volume[:, first : first + self.block_size].movedim(1, -1).contiguous()
            layers = block.reshape(-1, block.shape[-1]).t().contiguous()  # torch transposes two axes fastest
            self._blocks[number] = layers.reshape(-1, *block.shape[:-1])
        return self._blocks[number][index][:, None]


def crop(volume: torch.Tensor, start: Sequence[int], roi: Sequence[int], fill: float) -> torch.Tensor:
    """Return a window of a volume `(C, K, I, J)`, filled with `fill` outside the volume.

    >>> crop(torch.ones(1, 1, 1, 2), (0, 0, -1), (1, 1, 4), 7.0).tolist()
    [[[[7.0, 1.0, 1.0, 7.0]]]]
    """
    inner = [
        slice(max(first, 0), min(first + length, size))
        for first, length, size in zip(start, roi, volume.shape[1:], strict=True)
    ]
    part = volume[(slice(None), *inner)]
    if tuple(part.shape[1:]) == tuple(roi):
        return part
    window = volume.new_full((volume.shape[0], *roi), fill)
    outer = [slice(span.start - first, span.stop - first) for span, first in zip(inner, start, strict=True)]
    window[(slice(None), *outer)] = part
    return window
