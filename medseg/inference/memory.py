"""Estimate from shapes alone what segmenting a scan needs in memory, before anything is computed.

The figures are meant to be within a factor of two of what is measured; docs/how-to/predict.md compares them.
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
_ROOM = 1.1  # of the smallest budget that is named
_LIVE = 3  # how often the widest layer of a network, its input and its output, is in memory at once


@dataclass(frozen=True)
class Shapes:
    """Everything that the estimate depends on.

    Args:
        source: shape of the scan.
        network: shape of the network's grid.
        roi: of a window; two sizes for a 2D network.
        batch: windows that go through the network at once.
        classes: channels of the network's output.
        channels: channels of its input.
        width: channels of the widest layer, in and out together, at full resolution; see `width_of`.
        parameters: bytes of the weights.
        single: whether one window covers a layer.
        on_gpu: whether the network runs on a GPU.
        ahead: whether the next scan is read at the same time.
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
    """The memory that segmenting a scan takes, bytes.

    Args:
        ram: in addition to what the process has already.
        gpu: 0 where none is used.
        output: the label map, part of `ram`.
    """

    ram: int
    gpu: int
    output: int

    @property
    def total(self) -> str:
        """RAM and GPU memory as text, without the label map's part."""
        gpu = f" and {format_bytes(self.gpu)} of GPU memory" if self.gpu else ""
        return f"{format_bytes(self.ram)} of RAM{gpu}"

    def __str__(self) -> str:
        return f"{self.total} (the label map alone {format_bytes(self.output)})"


def estimate(shapes: Shapes) -> Need:
    """Return what segmenting one scan needs at its peak.

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
    sums = 4 * layers * rows * (shapes.classes + 1)
    network_input = 2 * 4 * network  # and its copy with the slices in front
    output = source * (1 if shapes.classes <= 256 else 2)
    hu = 2 * source  # for statistics and previews
    working = shapes.parameters + tiles + sums
    ram = network_input + (0 if shapes.on_gpu else working) + 2 * output + hu
    ram = ram + reading + output if shapes.ahead else max(ram, reading + hu)
    return Need(ram, working if shapes.on_gpu else 0, output)


def window_bytes(channels: int, width: float, classes: float, roi: Sequence[int]) -> int:
    """Return the bytes that one window takes on its way through the network; see `Shapes`."""
    return 4 * math.prod(roi) * math.ceil(channels + _LIVE * width + classes)


def fit(shapes: Shapes, ram: int | None, gpu: int | None, scan: object, process: int = 0) -> Shapes:
    """Return the same shapes with the largest batch, with or without reading ahead, that fits the budgets.

    Args:
        shapes: with the batch and the reading ahead to begin with.
        ram: bytes of RAM, in addition to what the process has; None for any number.
        gpu: bytes of GPU memory; None for any number.
        scan: named in the error.
        process: bytes that the process has already, where the user's budget counts them.

    Raises:
        DataError: not even one window at a time fits; the message names the smallest budget that would do.
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
    smallest = estimate(replace(shapes, batch=1, ahead=False))
    # Rounded up, with room for what the process takes more or less from one start to the next.
    needed = Need(int(_ROOM * (smallest.ram + process)), int(_ROOM * smallest.gpu), 0).total
    if ram is not None and smallest.ram > ram:
        free = f"{format_bytes(max(0, ram + process))} of RAM are {'allowed' if process else 'free'}"
    else:
        free = f"{format_bytes(gpu or 0)} are free on the GPU"
    own = f", {format_bytes(process)} of them for the program itself" if process else ""
    fix = "Allow more with --memory, crop the scan, or use a machine with more."
    raise DataError(scan, f"needs at least {needed}{own}", free, fix)


def width_of(network: nn.Module, channels: int, roi: Sequence[int]) -> float:
    """Return the channels of the widest layer, in and out together, per voxel of a window, from one small trial.

    A network is tried once for each size.

    >>> width_of(nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 2, 1)), 1, (32, 32))
    10.0
    """
    widths = _widths.setdefault(network, {})
    size = (channels, *(min(32, length) for length in roi))
    if size not in widths:
        widths[size] = _measure_width(network, channels, size[1:])
    return widths[size]


def _measure_width(network: nn.Module, channels: int, size: Sequence[int]) -> float:
    voxels = math.prod(size)
    widths = [float(channels)]

    def record(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        tensors = [value for value in (*inputs, output) if isinstance(value, torch.Tensor)]
        widths.append(sum(tensor.numel() for tensor in tensors) / voxels)

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(record) for leaf in leaves]
    first = next(network.parameters(), torch.empty(0))
    try:
        with torch.no_grad():
            network(torch.zeros((1, channels, *size), device=first.device, dtype=first.dtype))
    except RuntimeError:  # a network that takes windows of one size only: the layers before the error count
        return max(widths)
    finally:
        for hook in hooks:
            hook.remove()
    return max(widths)
