"""Where windows lie in a volume, front to back along one axis, and how much each of their voxels counts.

Places and weights are those of MONAI's `sliding_window_inference`; the order is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from monai.data.utils import compute_importance_map
from monai.utils import BlendMode


@dataclass(frozen=True)
class Plan:
    """The windows of a volume `(K, I, J)` whose layers are finished one after the other along the first axis.

    Args:
        shape: of the volume.
        roi: of a window; 1 along the first axis for a network of slices.
        starts: where windows begin on each axis; negative where the volume is smaller and is filled up.
    """

    shape: tuple[int, int, int]
    roi: tuple[int, int, int]
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    @classmethod
    def of(cls, shape: Sequence[int], roi: Sequence[int], overlap: Sequence[float]) -> Plan:
        """The plan MONAI makes for this overlap (share of a window, by axis)."""
        starts = [_starts(*axis) for axis in zip(shape, roi, overlap, strict=True)]
        (k, i, j), (rk, ri, rj) = shape, roi
        return cls((k, i, j), (rk, ri, rj), (starts[0], starts[1], starts[2]))

    def narrowed(self, box: Sequence[tuple[int, int]]) -> Plan:
        """The windows that touch a box, `(first, end)` by axis: each voxel in it is seen as by the whole plan."""
        starts = [
            tuple(start for start in axis if start < end and start + length > first)
            for axis, length, (first, end) in zip(self.starts, self.roi, box, strict=True)
        ]
        return replace(self, starts=(starts[0], starts[1], starts[2]))

    def every(self, step: int) -> Plan:
        """Every so manieth window along the first axis only, the last one always."""
        first = self.starts[0]
        return replace(self, starts=(tuple(dict.fromkeys((*first[::step], first[-1]))), *self.starts[1:]))

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Where each window begins, front to back."""
        yield from product(*self.starts)

    def __len__(self) -> int:
        """The number of windows."""
        return len(self.starts[0]) * len(self.starts[1]) * len(self.starts[2])

    @property
    def single(self) -> bool:
        """Whether each layer is covered by one window alone."""
        rows = [len(starts) == 1 for starts in self.starts]
        return rows[1] and rows[2] and (self.roi[0] == 1 or rows[0])

    def importance(self, mode: str, sigma_scale: float, device: torch.device) -> torch.Tensor:
        """How much each voxel of a window counts, `(rk, ri, rj)`."""
        dims = 1 if self.roi[0] == 1 else 0  # a network of slices weighs within the slice
        weights = compute_importance_map(
            self.roi[dims:], mode=BlendMode(mode), sigma_scale=sigma_scale, device=device, dtype=torch.float32
        )
        return torch.as_tensor(weights).reshape(self.roi)


def _starts(size: int, roi: int, overlap: float) -> tuple[int, ...]:
    if size <= roi:
        return (-((roi - size) // 2),)
    step = max(1, int(roi * (1 - overlap)))
    count = -(-(size - roi) // step) + 1
    return tuple(dict.fromkeys(min(number * step, size - roi) for number in range(count)))


class Layers:
    """The layers of a volume `(C, K, I, J)`, each contiguous, whichever way the volume lies in memory.

    A layer across the order of memory is one number in each cache line, and those beside it are the next layers':
    so a few are turned round at once, and no copy of the whole is made.

    Args:
        volume: what to take them from.
        at_once: how many are turned round together.
    """

    def __init__(self, volume: torch.Tensor, at_once: int = 16) -> None:
        self.volume, self.at_once = volume, at_once
        self._turned: dict[int, torch.Tensor] = {}

    def __getitem__(self, k: int) -> torch.Tensor:
        """Layer `k`, or the nearest there is, `(C, 1, I, J)`."""
        k = min(max(k, 0), self.volume.shape[1] - 1)
        if self.volume.stride(1) != 1:
            return self.volume[:, k : k + 1]
        block, at = divmod(k, self.at_once)
        if block not in self._turned:
            for old in [one for one in self._turned if one < block - 1]:
                del self._turned[old]
            part = self.volume[:, block * self.at_once : (block + 1) * self.at_once].movedim(1, -1).contiguous()
            turned = part.reshape(-1, part.shape[-1]).t().contiguous()  # torch is quick at this with two axes
            self._turned[block] = turned.reshape(-1, *part.shape[:-1])
        return self._turned[block][at][:, None]


def cut(volume: torch.Tensor, start: Sequence[int], roi: Sequence[int], fill: float) -> torch.Tensor:
    """The window of a volume `(C, K, I, J)`, filled up where it reaches beyond.

    >>> cut(torch.ones(1, 1, 1, 2), (0, 0, -1), (1, 1, 4), 7.0).tolist()
    [[[[7.0, 1.0, 1.0, 7.0]]]]
    """
    size = volume.shape[1:]
    inner = [slice(max(at, 0), min(at + length, whole)) for at, length, whole in zip(start, roi, size, strict=True)]
    part = volume[(slice(None), *inner)]
    if tuple(part.shape[1:]) == tuple(roi):
        return part
    whole_window = volume.new_full((volume.shape[0], *roi), fill)
    outer = [slice(one.start - at, one.stop - at) for one, at in zip(inner, start, strict=True)]
    whole_window[(slice(None), *outer)] = part
    return whole_window
