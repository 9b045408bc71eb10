"""Memory that stays, apart from what a network takes and frees."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import torch


def empty_apart(shape: Sequence[int], device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor to write into; in RAM it lies in a map of its own, not among what the process takes and frees.

    There, what stays leaves holes around it that no large block fits into, and the process grows. On a GPU torch keeps
    its own order.

    >>> empty_apart((2, 3), torch.device("cpu"), torch.bfloat16).shape
    torch.Size([2, 3])
    """
    shape = tuple(int(size) for size in shape)
    count = math.prod(shape)
    if device.type != "cpu" or not count:
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, dtype.itemsize * count), dtype=dtype, count=count).view(shape)
