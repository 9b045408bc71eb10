"""Turn logits into labels, one layer at a time: the largest channel of each voxel, on this grid or another one.

Compiled with numba where it is installed (the extra `fast`) and the logits lie in RAM, in torch otherwise. Logits
come channels last, `(I, J, C)`, as sums over windows; the summed weights `(I, J)` divide them where that matters.
Logits in bfloat16 are read as they are: a copy in float32 would take as long as all the rest.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from medseg.errors import MissingExtraError
from medseg.parallel_slices import parallel_slices

# Integers of the same size: NumPy has no bfloat16, and integers compare faster.
_INTEGERS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


class Layer(NamedTuple):
    """One finished layer of the network's grid.

    Args:
        sums: weighted logits, `(I, J, C)`, contiguous; float32, or bfloat16 where `uses_numba` says so.
        weights: the summed weights, `(I, J)`; None where they are all 1.
        labels: the label of each voxel, `(I, J)`; empty where labels are not what is decoded.
    """

    sums: torch.Tensor
    weights: torch.Tensor | None
    labels: torch.Tensor

    def to(self, device: torch.device) -> Layer:
        """Return the same layer on a device."""
        weights = None if self.weights is None else self.weights.to(device)
        return Layer(self.sums.to(device), weights, self.labels.to(device))


class ChannelPriority(NamedTuple):
    """Which of several present channels gives a voxel its label, channel `c` being label `c + 1`.

    Args:
        order: channels, the one that covers all others first, int64.
        thresholds: for each channel the logit above which it is present, float32.
    """

    order: npt.NDArray[np.int64]
    thresholds: npt.NDArray[np.float32]


NO_PRIORITY = ChannelPriority(np.zeros(0, np.int64), np.zeros(0, np.float32))


class AxisMap(NamedTuple):
    """Where the voxels of an output axis lie on an input axis: between `low` and `low + 1`.

    Args:
        low: index of the voxel below, int64.
        fraction: weight of the voxel above, 0 to below 1, float32; 0 where there is none above.
        inside: whether the voxel lies on the input at all; otherwise it is background.
    """

    low: npt.NDArray[np.int64]
    fraction: npt.NDArray[np.float32]
    inside: npt.NDArray[np.bool_]

    @property
    def is_on_grid(self) -> bool:
        """Whether every output voxel coincides with an input voxel, so that nothing is interpolated."""
        return not self.fraction.any() and bool(self.inside.all())


def uses_numba(logits: torch.Tensor) -> bool:
    """Return whether the compiled loops take these logits."""
    return logits.device.type == "cpu" and logits.dtype in _INTEGERS and _loops() is not None


@functools.cache
def _loops() -> Any | None:
    try:
        return importlib.import_module("medseg.inference.layer_loops")
    except MissingExtraError:
        return None


def argmax_channels(sums: torch.Tensor, channels: int | None = None) -> torch.Tensor:
    """Return the largest channel of each voxel, the first of equals: `(I, J, C)` to `(I, J)`, uint8 or int16.

    >>> argmax_channels(torch.tensor([[[0.0, 2.0, 1.0]]])).tolist()
    [[1]]
    """
    dtype = torch.uint8 if (channels or sums.shape[-1]) <= 256 else torch.int16
    loops = _loops() if uses_numba(sums) else None
    if loops is None:
        return sums.argmax(dim=-1).to(dtype)
    labels = torch.empty(sums.shape[:2], dtype=dtype)
    bits, out = sums.contiguous().view(_INTEGERS[sums.dtype]).numpy(), labels.numpy()
    _parallel_rows(len(out), lambda rows: loops.argmax_channels(bits[rows], out[rows]))
    return labels


def flatten_channels(sums: torch.Tensor, weights: torch.Tensor | None, priority: ChannelPriority) -> torch.Tensor:
    """Return the label of the first present channel of each voxel, 0 without one: `(I, J, C)` to `(I, J)`.

    uint8, or int16 above 255 channels.

    >>> priority = ChannelPriority(np.array([0, 1]), np.zeros(2, np.float32))
    >>> flatten_channels(torch.tensor([[[1.0, 2.0], [-1.0, 2.0], [-1.0, -1.0]]]), None, priority).tolist()
    [[1, 2, 0]]
    """
    dtype = torch.uint8 if sums.shape[-1] < 256 else torch.int16
    loops = _loops() if uses_numba(sums) else None
    if loops is None:
        return _flatten(_mean_logits(Layer(sums, weights, sums)), priority).to(dtype)
    labels = torch.empty(sums.shape[:2], dtype=dtype)
    values, out, counts = _array(sums.contiguous()), labels.numpy(), _weights(weights)

    def flatten(rows: slice) -> None:
        loops.flatten_channels(values[rows], counts if weights is None else counts[rows], *priority, out[rows])

    _parallel_rows(len(out), flatten)
    return labels


def _flatten(logits: torch.Tensor, priority: ChannelPriority) -> torch.Tensor:
    order = torch.from_numpy(priority.order).to(logits.device)
    present = (logits > torch.from_numpy(priority.thresholds).to(logits.device))[..., order]
    if not len(order):
        return present.sum(-1)
    # argmax of 0 and 1 is the first 1, so the channel of highest priority.
    return torch.where(present.any(dim=-1), order[present.int().argmax(dim=-1)] + 1, 0)


def add_window(
    sums: torch.Tensor,
    counts: torch.Tensor,
    tile: torch.Tensor,
    weights: torch.Tensor,
    rows: slice,
    columns: slice,
    corner: tuple[int, int],
) -> None:
    """Add the logits of one window to a layer, times its weights, and add up the weights.

    Args:
        sums: of the layer, `(I, J, C)`, float32; its values count only where `counts` is above 0, except for a
            tile that the compiled loops do not take: then they must be 0 there.
        counts: summed weights, `(I, J)`, float32.
        tile: logits of the window, `(h, w, C)`.
        weights: of the tile's voxels, `(h, w)`, all above 0.
        rows: of the layer that the window covers.
        columns: of the layer that the window covers.
        corner: first row and column of the tile that lie inside the layer.
    """
    height, width = rows.stop - rows.start, columns.stop - columns.start
    top, left = corner
    loops = _loops() if uses_numba(tile) else None
    if loops is not None:
        arrays = sums.numpy(), counts.numpy(), _array(tile.contiguous()), weights.contiguous().numpy()

        def add(strip: slice) -> None:
            first, count = strip.start, strip.stop - strip.start
            loops.add_window(*arrays, rows.start + first, columns.start, top + first, left, count, width)

        _parallel_rows(height, add)
        return
    inner = slice(top, top + height), slice(left, left + width)
    sums[rows, columns].addcmul_(tile[inner].to(sums.dtype), weights[inner][..., None])
    counts[rows, columns] += weights[inner]


def interpolate_labels(
    below: Layer,
    above: Layer,
    fraction: float,
    rows: AxisMap,
    columns: AxisMap,
    priority: ChannelPriority = NO_PRIORITY,
) -> torch.Tensor:
    """Return the labels of an output layer between two input layers: linear on the logits, then the largest.

    Where all corners of a cell have the same label, so has every point in it (what is largest at all corners is
    largest in any mixture; what is above its threshold at all is above it in any), and nothing is interpolated.

    Args:
        below: the layer below.
        above: the layer above; the same where `fraction` is 0.
        fraction: weight of the layer above.
        rows: the output's first axis in the input.
        columns: its second.
        priority: for multilabel channels: the first present one counts, not the largest.
    """
    loops = _loops() if uses_numba(below.sums) else None
    if rows.is_on_grid and columns.is_on_grid and fraction == 0:
        return _pick(below.labels, rows, columns)
    if loops is None:
        logits = interpolate_logits(below, above, fraction, rows, columns)
        labels = _flatten(logits, priority) if len(priority.thresholds) else logits.argmax(dim=-1)
        return _clear_outside(labels.to(below.labels.dtype), rows, columns)
    labels = torch.empty((len(rows.low), len(columns.low)), dtype=below.labels.dtype)
    out = labels.numpy()
    layers = (
        _array(below.sums),
        _array(above.sums),
        _weights(below.weights),
        _weights(above.weights),
        below.labels.numpy(),
        above.labels.numpy(),
        np.float32(fraction),
    )

    def interpolate(strip: slice) -> None:
        strip_rows = rows.low[strip], rows.fraction[strip], rows.inside[strip]
        loops.interpolate_labels(*layers, *priority, *strip_rows, *columns, out[strip])

    _parallel_rows(len(out), interpolate)
    return labels


def interpolate_logits(below: Layer, above: Layer, fraction: float, rows: AxisMap, columns: AxisMap) -> torch.Tensor:
    """Return the logits of an output layer, `(rows, columns, C)`; voxels outside repeat the border."""
    logits = _mean_logits(below)
    if fraction:
        logits = torch.lerp(logits, _mean_logits(above), fraction)
    return _lerp_axis(_lerp_axis(logits, rows, 0), columns, 1)


def _lerp_axis(logits: torch.Tensor, axis: AxisMap, dim: int) -> torch.Tensor:
    low = torch.from_numpy(axis.low).to(logits.device)
    if not axis.fraction.any():
        return logits.index_select(dim, low)
    high = torch.clamp(low + 1, max=logits.shape[dim] - 1)
    shape = [1, 1, 1]
    shape[dim] = -1
    fraction = torch.from_numpy(axis.fraction).to(logits.device).reshape(shape)
    return torch.lerp(logits.index_select(dim, low), logits.index_select(dim, high), fraction)


def _mean_logits(layer: Layer) -> torch.Tensor:
    return layer.sums.float() if layer.weights is None else layer.sums / layer.weights[..., None]


def _pick(labels: torch.Tensor, rows: AxisMap, columns: AxisMap) -> torch.Tensor:
    row_index = torch.from_numpy(rows.low).to(labels.device)
    column_index = torch.from_numpy(columns.low).to(labels.device)
    picked: torch.Tensor = labels[row_index][:, column_index]
    return picked


def _clear_outside(labels: torch.Tensor, rows: AxisMap, columns: AxisMap) -> torch.Tensor:
    if not (rows.inside.all() and columns.inside.all()):
        labels *= torch.from_numpy(rows.inside[:, None] & columns.inside).to(labels.device)
    return labels


def _parallel_rows(rows: int, work: Callable[[slice], None]) -> None:
    # Below 8 rows a thread, starting it takes longer than its work.
    parallel_slices(rows, work, torch.get_num_threads(), grain=8)


def _array(logits: torch.Tensor) -> npt.NDArray[Any]:
    """Return logits as the loops take them: bfloat16, which NumPy does not know, as int16."""
    array: npt.NDArray[Any] = (logits if logits.dtype == torch.float32 else logits.view(torch.int16)).numpy()
    return array


def _weights(weights: torch.Tensor | None) -> npt.NDArray[np.float32]:
    """Return weights as the loops take them: a single number where they are all 1."""
    array: npt.NDArray[np.float32] = np.ones((1, 1), np.float32) if weights is None else weights.numpy()
    return array
