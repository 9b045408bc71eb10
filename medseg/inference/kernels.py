"""From logits to labels, one layer at a time: the largest channel of each voxel, on this grid or another one.

Compiled with numba where it is installed (the extra `fast`) and the logits lie in RAM, in torch otherwise. Logits
come channels last, `(I, J, C)`, as sums over windows; the summed weights `(I, J)` divide them where that matters.
What a network says in bfloat16 is read as it is: a copy in float32 would take as long as all the rest.
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

_INTEGERS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


class Layer(NamedTuple):
    """One layer of the network's grid, finished.

    Args:
        sums: weighted logits, `(I, J, C)`, contiguous; float32, or bfloat16 where `compiled` takes it.
        weights: the summed weights, `(I, J)`; None where they are all 1.
        best: the largest channel of each voxel, `(I, J)`.
    """

    sums: torch.Tensor
    weights: torch.Tensor | None
    best: torch.Tensor

    def to(self, device: torch.device) -> Layer:
        """The same layer on a device."""
        return Layer(self.sums.to(device), None if self.weights is None else self.weights.to(device),
                     self.best.to(device))  # fmt: skip


class Painting(NamedTuple):
    """Which of several channels that are there gives a voxel its label, channel `c` being label `c + 1`.

    Args:
        upper: channels, the one that covers all others first, int64.
        cuts: for each channel the logit above which it is there, float32.
    """

    upper: npt.NDArray[np.int64]
    cuts: npt.NDArray[np.float32]


NO_PAINTING = Painting(np.zeros(0, np.int64), np.zeros(0, np.float32))


class Axis(NamedTuple):
    """Where the voxels of one axis of the output lie on an axis of the input: between `low` and `low + 1`.

    Args:
        low: index below, int64.
        part: share of the one above, 0 to below 1, float32; 0 where there is none above.
        inside: whether it lies on the input at all; what does not is background.
    """

    low: npt.NDArray[np.int64]
    part: npt.NDArray[np.float32]
    inside: npt.NDArray[np.bool_]

    @property
    def is_plain(self) -> bool:
        """Whether every voxel is one of the input's."""
        return not self.part.any() and bool(self.inside.all())


def compiled(logits: torch.Tensor) -> bool:
    """Whether the compiled kernels can be used with these."""
    return logits.device.type == "cpu" and logits.dtype in _INTEGERS and _kernels() is not None


@functools.cache
def _kernels() -> Any | None:
    try:
        return importlib.import_module("medseg.inference.compiled")
    except MissingExtraError:
        return None


def best_of(sums: torch.Tensor, channels: int | None = None) -> torch.Tensor:
    """The largest channel of each voxel, the first of equals: `(I, J, C)` to `(I, J)`, uint8 or int16.

    >>> best_of(torch.tensor([[[0.0, 2.0, 1.0]]])).tolist()
    [[1]]
    """
    kind = torch.uint8 if (channels or sums.shape[-1]) <= 256 else torch.int16
    kernels = _kernels() if compiled(sums) else None
    if kernels is None:
        return sums.argmax(dim=-1).to(kind)
    found = torch.empty(sums.shape[:2], dtype=kind)
    bits, out = sums.contiguous().view(_INTEGERS[sums.dtype]).numpy(), found.numpy()
    _parallel_slices(len(out), lambda rows: kernels.best(bits[rows], out[rows]))
    return found


def painted(sums: torch.Tensor, weights: torch.Tensor | None, painting: Painting) -> torch.Tensor:
    """The label that painting leaves each voxel, 0 for background: `(I, J, C)` to `(I, J)`, uint8 or int16.

    >>> upper = Painting(np.array([0, 1]), np.zeros(2, np.float32))
    >>> painted(torch.tensor([[[1.0, 2.0], [-1.0, 2.0], [-1.0, -1.0]]]), None, upper).tolist()
    [[1, 2, 0]]
    """
    kind = torch.uint8 if sums.shape[-1] < 256 else torch.int16
    kernels = _kernels() if compiled(sums) else None
    if kernels is None:
        return _painted(_normal(Layer(sums, weights, sums)), painting).to(kind)
    found = torch.empty(sums.shape[:2], dtype=kind)
    values, out, counts = _array(sums.contiguous()), found.numpy(), _weights(weights)

    def paint(rows: slice) -> None:
        kernels.painted(values[rows], counts if weights is None else counts[rows], *painting, out[rows])

    _parallel_slices(len(out), paint)
    return found


def _painted(logits: torch.Tensor, painting: Painting) -> torch.Tensor:
    upper = torch.from_numpy(painting.upper).to(logits.device)
    there = (logits > torch.from_numpy(painting.cuts).to(logits.device))[..., upper]
    first = torch.where(there.any(dim=-1), upper[there.int().argmax(dim=-1)] + 1, 0) if len(upper) else there.sum(-1)
    return torch.as_tensor(first)


def add_window(
    sums: torch.Tensor, counts: torch.Tensor, tile: torch.Tensor, weights: torch.Tensor, rows: slice, columns: slice,
    inner: tuple[int, int],
) -> None:  # fmt: skip
    """Add what a network says of one window of a layer, times its weights, and count the weights.

    Args:
        sums: of the layer, `(I, J, C)`, float32; what lies there counts only where `counts` is above 0, or where
            the tile is none that `compiled` takes: then it must be 0.
        counts: summed weights, `(I, J)`, float32.
        tile: what the network says, `(h, w, C)`.
        weights: of the tile's voxels, `(h, w)`, all above 0.
        rows: where it goes.
        columns: where it goes.
        inner: first row and column of the tile that go there.
    """
    height, width = rows.stop - rows.start, columns.stop - columns.start
    kernels = _kernels() if compiled(tile) else None
    if kernels is not None:
        arrays = sums.numpy(), counts.numpy(), _array(tile.contiguous()), weights.contiguous().numpy()
        top, left = inner

        def blend(part: slice) -> None:
            first, count = part.start, part.stop - part.start
            kernels.blend(*arrays, rows.start + first, columns.start, top + first, left, count, width)

        _parallel_slices(height, blend)
        return
    part = slice(inner[0], inner[0] + height), slice(inner[1], inner[1] + width)
    sums[rows, columns].addcmul_(tile[part].to(sums.dtype), weights[part][..., None])
    counts[rows, columns] += weights[part]


def labels_between(
    below: Layer, above: Layer, part: float, rows: Axis, columns: Axis, painting: Painting = NO_PAINTING
) -> torch.Tensor:
    """The labels of one output layer between two layers of the input: linear on the logits, then the largest.

    Where all corners of a cell have the same label, so has every point in it (what is largest at all corners is
    largest in any mixture; what is above its cut at all is above it in any), and nothing is interpolated.

    Args:
        below: the layer below.
        above: the layer above; the same where `part` is 0.
        part: share of the layer above.
        rows: the output's first axis in the input.
        columns: its second.
        painting: for channels that are structures of their own: the uppermost above its cut, not the largest.
    """
    kernels = _kernels() if compiled(below.sums) else None
    if rows.is_plain and columns.is_plain and part == 0:
        return _pick(below.best, rows, columns)
    if kernels is None:
        logits = interpolated(below, above, part, rows, columns)
        labels = _painted(logits, painting) if len(painting.cuts) else logits.argmax(dim=-1)
        return _nothing_outside(labels.to(below.best.dtype), rows, columns)
    found = torch.empty((len(rows.low), len(columns.low)), dtype=below.best.dtype)
    weights = [_weights(layer.weights) for layer in (below, above)]
    layers = _array(below.sums), _array(above.sums), *weights, below.best.numpy(), above.best.numpy(), np.float32(part)
    out = found.numpy()
    _parallel_slices(
        len(out),
        lambda some: kernels.between(
            *layers, *painting, rows.low[some], rows.part[some], rows.inside[some],
            columns.low, columns.part, columns.inside, out[some],
        ),
    )  # fmt: skip
    return found


def _parallel_slices(rows: int, work: Callable[[slice], None]) -> None:
    parallel_slices(rows, work, torch.get_num_threads(), grain=8)


def _array(logits: torch.Tensor) -> npt.NDArray[Any]:
    """As the kernels take them: bfloat16, which NumPy does not know, as int16."""
    array: npt.NDArray[Any] = (logits if logits.dtype == torch.float32 else logits.view(torch.int16)).numpy()
    return array


def _pick(best: torch.Tensor, rows: Axis, columns: Axis) -> torch.Tensor:
    picked: torch.Tensor = best[torch.from_numpy(rows.low).to(best.device)][
        :, torch.from_numpy(columns.low).to(best.device)
    ]
    return picked


def _nothing_outside(labels: torch.Tensor, rows: Axis, columns: Axis) -> torch.Tensor:
    if not (rows.inside.all() and columns.inside.all()):
        labels *= torch.from_numpy(rows.inside[:, None] & columns.inside).to(labels.device)
    return labels


def interpolated(below: Layer, above: Layer, part: float, rows: Axis, columns: Axis) -> torch.Tensor:
    """The logits of one output layer, `(rows, columns, C)`; what lies outside repeats the border."""
    logits = _normal(below)
    if part:
        logits = torch.lerp(logits, _normal(above), part)
    return _lerp(_lerp(logits, rows, 0), columns, 1)


def _weights(weights: torch.Tensor | None) -> npt.NDArray[np.float32]:
    """As the kernels take them: one number where they are all 1."""
    array: npt.NDArray[np.float32] = np.ones((1, 1), np.float32) if weights is None else weights.numpy()
    return array


def _normal(layer: Layer) -> torch.Tensor:
    return layer.sums.float() if layer.weights is None else layer.sums / layer.weights[..., None]


def _lerp(logits: torch.Tensor, axis: Axis, dim: int) -> torch.Tensor:
    low = torch.from_numpy(axis.low).to(logits.device)
    if not axis.part.any():
        return logits.index_select(dim, low)
    high = torch.clamp(low + 1, max=logits.shape[dim] - 1)
    shape = [1, 1, 1]
    shape[dim] = -1
    part = torch.from_numpy(axis.part).to(logits.device).reshape(shape)
    return torch.lerp(logits.index_select(dim, low), logits.index_select(dim, high), part)
