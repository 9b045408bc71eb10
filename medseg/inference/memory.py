"""What segmenting a scan will need in memory, from shapes alone, before anything is computed.

The figures are estimates, meant to be within a factor of two of what is measured; docs/how-to/predict.md says how.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from medseg.errors import DataError
from medseg.resources import format_bytes

# Bytes for each voxel of the scan, and of the network's grid, while it is read; more where MONAI resamples in float64
_READ, _RESAMPLED = (12, 12), (20, 32)
_widths: weakref.WeakKeyDictionary[nn.Module, dict[tuple[int, ...], float]] = weakref.WeakKeyDictionary()
_LIVE = 3  # how many times the widest layer of a network, its input and its output, is held at once


@dataclass(frozen=True)
class Shapes:
    """All that the estimate goes by.

    Args:
        source: voxels of the scan.
        network: voxels of the network's grid.
        roi: of a window; two sizes for a network of slices.
        batch: windows that go through the network at once.
        classes: channels that come out of the network.
        channels: channels that go in.
        width: channels of the widest layer, in and out together, at full resolution; see `width_of`.
        parameters: bytes of the weights.
        single: whether one window covers a whole layer.
        on_gpu: whether the network runs on a GPU.
        ahead: whether the next scan is read meanwhile.
    """

    source: tuple[int, int, int]
    network: tuple[int, int, int]
    roi: tuple[int, ...]
    batch: int
    classes: int
    channels: int
    width: float
    parameters: int = 0
    single: bool = False
    on_gpu: bool = False
    ahead: bool = True


@dataclass(frozen=True)
class Need:
    """What it comes to, in bytes.

    Args:
        ram: above what the process has already.
        gpu: 0 where none is used.
        output: the label map, part of `ram`.
    """

    ram: int
    gpu: int
    output: int

    def __str__(self) -> str:
        gpu = f", {format_bytes(self.gpu)} of GPU memory" if self.gpu else ""
        return f"{format_bytes(self.ram)} of RAM{gpu} (the label map alone {format_bytes(self.output)})"


def estimate(shapes: Shapes) -> Need:
    """What segmenting one scan needs at its peak.

    >>> shapes = Shapes((512, 512, 800), (333, 333, 800), (256, 256), 4, 118, 1, 96)
    >>> str(estimate(shapes))
    '9.6 GB of RAM (the label map alone 0.21 GB)'
    """
    source, network = math.prod(shapes.source), math.prod(shapes.network)
    per_source, per_network = _READ if sorted(shapes.source) == sorted(shapes.network) else _RESAMPLED
    reading = per_source * source + per_network * network
    tiles = shapes.batch * window_bytes(shapes.channels, shapes.width, shapes.classes, shapes.roi)
    depth = 1 if len(shapes.roi) == 2 else shapes.roi[0]
    layers = 2 if shapes.single and depth == 1 else depth + 2
    rows = network // min(shapes.network)  # the largest layer, whichever axis is the one of the slices
    slab = 4 * layers * rows * (shapes.classes + 1)
    held = 2 * 4 * network  # the network's input and its copy with the slices in front
    output = source * (1 if shapes.classes <= 256 else 2)
    kept = 2 * source  # HU, for statistics and pictures
    working = shapes.parameters + tiles + slab
    ram = held + (0 if shapes.on_gpu else working) + 2 * output + kept
    ram = ram + reading + output if shapes.ahead else max(ram, reading + kept)
    return Need(ram, working if shapes.on_gpu else 0, output)


def window_bytes(channels: int, width: float, classes: float, roi: Sequence[int]) -> int:
    """What one window takes on its way through the network; see `Shapes`."""
    return 4 * math.prod(roi) * math.ceil(channels + _LIVE * width + classes)


def fit(shapes: Shapes, ram: int | None, gpu: int | None, scan: object) -> Shapes:
    """The same shapes with the largest batch, and with or without reading ahead, that stay below the budgets.

    Args:
        shapes: what is wanted.
        ram: bytes of RAM, beyond what the process has; None for any number.
        gpu: bytes of GPU memory; None for any number.
        scan: named in the error.

    Raises:
        DataError: not even one window at a time does; says the smallest budget that would.
    """
    batches = [shapes.batch]
    while batches[-1] > 1:
        batches.append(batches[-1] // 2)
    for ahead in [True, False] if shapes.ahead else [False]:
        for batch in batches:
            trial = replace(shapes, batch=batch, ahead=ahead)
            need = estimate(trial)
            if (ram is None or need.ram <= ram) and (gpu is None or need.gpu <= gpu):
                return trial
    least = estimate(replace(shapes, batch=1, ahead=False))
    found = (
        f"{format_bytes(ram)} of RAM" if ram is not None and least.ram > ram else f"{format_bytes(gpu or 0)} on the GPU"
    )
    raise DataError(
        scan,
        f"needs at least {least}",
        f"{found} to use",
        "Give more with --memory, crop the scan, or take a machine with more.",
    )


def width_of(network: nn.Module, channels: int, roi: Sequence[int]) -> float:
    """Channels of the widest layer, in and out together, for each voxel of a window; from one small trial.

    A network that was tried before is not tried again.

    >>> width_of(nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 2, 1)), 1, (32, 32))
    10.0
    """
    known = _widths.setdefault(network, {})
    size = (channels, *(min(32, length) for length in roi))
    if size not in known:
        known[size] = _tried(network, channels, size[1:])
    return known[size]


def _tried(network: nn.Module, channels: int, size: Sequence[int]) -> float:
    voxels = math.prod(size)
    found = [float(channels)]

    def look(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        tensors = [one for one in (*inputs, output) if isinstance(one, torch.Tensor)]
        found.append(sum(one.numel() for one in tensors) / voxels)

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(look) for leaf in leaves]
    first = next(network.parameters(), torch.empty(0))
    try:
        with torch.no_grad():
            network(torch.zeros((1, channels, *size), device=first.device, dtype=first.dtype))
    except RuntimeError:  # a network that takes windows of its own size only
        return max(found)
    finally:
        for hook in hooks:
            hook.remove()
    return max(found)
