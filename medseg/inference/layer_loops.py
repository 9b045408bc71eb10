"""Compile the loops of `medseg.inference.kernels` with numba; imported only through that module."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from medseg.optional import require_numba

numba = require_numba()
extending = importlib.import_module("numba.extending")
# Not numba's own threads: they and torch's wait by spinning, and where both do, on two cores or beside other work,
# a volume takes ten times as long. `kernels` runs these loops in threads that sleep.
# The input was checked for NaN, and sums may be taken in any order, so that they become vector instructions.
_jit = numba.njit(nogil=True, cache=True, fastmath={"nnan", "ninf", "nsz", "reassoc", "contract", "arcp"})


def _widen(value):  # type: ignore[no-untyped-def]
    """Return the float32 of a logit: itself, or the value of the bits of a bfloat16."""
    return value


_wide: Any = _widen


@extending.overload(_widen)
def _widen_of(value):  # type: ignore[no-untyped-def]
    # A bfloat16 is the upper half of a float32.
    if isinstance(value, numba.types.Integer):
        return lambda value: np.uint32(np.uint32(np.uint16(value)) << np.uint32(16)).view(np.float32)
    return lambda value: value


@_jit
def argmax_channels(bits, labels):  # type: ignore[no-untyped-def]
    """Write the largest channel of each voxel into `labels`, `(I, J)`.

    `bits`, `(I, J, C)`, are float32 or bfloat16 viewed as integers of their size: with the lower bits of negative
    ones inverted, integers have the order of the floats, and their maximum takes fewer instructions.
    """
    height, width, channels = bits.shape
    sign = bits.itemsize * 8 - 1
    lower = (1 << sign) - 1
    for i in range(height):
        for j in range(width):
            voxel = bits[i, j]
            largest = voxel[0] ^ ((voxel[0] >> sign) & lower)
            for c in range(1, channels):
                largest = max(largest, voxel[c] ^ ((voxel[c] >> sign) & lower))
            # Back to the bits of the float, then a second pass for its index: a maximum with its index would not
            # become vector instructions.
            largest ^= (largest >> sign) & lower
            index = 0
            while voxel[index] != largest:
                index += 1
            labels[i, j] = index


@_jit
def add_window(sums, counts, tile, weights, row, column, top, left, height, width):  # type: ignore[no-untyped-def]
    """Add a part of `tile`, from `(top, left)` on, to `sums` at `(row, column)`, see `kernels.add_window`."""
    channels = sums.shape[2]
    for i in range(height):
        for j in range(width):
            total, logits, weight = sums[row + i, column + j], tile[top + i, left + j], weights[top + i, left + j]
            # The first window overwrites whatever the memory held: cheaper than setting it to 0 before.
            if counts[row + i, column + j] == 0:
                for c in range(channels):
                    total[c] = weight * _wide(logits[c])
            else:
                for c in range(channels):
                    total[c] += weight * _wide(logits[c])
            counts[row + i, column + j] += weight


@_jit
def _argmax(logits):  # type: ignore[no-untyped-def]
    channels = len(logits)
    largest = logits[0]
    for n in range(1, channels):
        largest = max(largest, logits[n])
    index = 0
    while logits[index] != largest and index < channels - 1:  # without the bound, NaN would never be equal
        index += 1
    return index


@_jit
def _first_present(logits, order, thresholds, weight):  # type: ignore[no-untyped-def]
    for n in range(len(order)):
        # The logit is a sum over windows: multiplying the threshold by its weight saves a division.
        if _wide(logits[order[n]]) > thresholds[order[n]] * weight:
            return order[n] + 1
    return 0


@_jit
def flatten_channels(sums, weights, order, thresholds, labels):  # type: ignore[no-untyped-def]
    """Write the first present channel of each voxel, plus 1, into `labels`; 0 without one."""
    unweighted = weights.size == 1
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            weight = np.float32(1) if unweighted else weights[i, j]
            labels[i, j] = _first_present(sums[i, j], order, thresholds, weight)


@_jit
def interpolate_labels(  # type: ignore[no-untyped-def]
    below, above, weights0, weights1, labels0, labels1, fraction, order, thresholds,
    row, row_fraction, row_inside, column, column_fraction, column_inside, labels,
):  # fmt: skip
    """Write the labels of a layer between two others into `labels`; see `kernels.interpolate_labels`."""
    height, width, channels = below.shape
    unweighted0, unweighted1 = weights0.size == 1, weights1.size == 1
    for i in range(len(row)):
        mixed = np.empty(channels, np.float32)
        i0 = row[i]
        i1 = min(i0 + 1, height - 1) if row_fraction[i] > 0 else i0
        for j in range(len(column)):
            if not (row_inside[i] and column_inside[j]):
                labels[i, j] = 0
                continue
            j0 = column[j]
            j1 = min(j0 + 1, width - 1) if column_fraction[j] > 0 else j0
            # Most cells lie inside one structure: their label needs no logits.
            first = labels0[i0, j0]
            same = labels0[i1, j0] == first and labels0[i0, j1] == first and labels0[i1, j1] == first
            if same and fraction > 0:
                same = labels1[i0, j0] == first and labels1[i1, j0] == first
                same = same and labels1[i0, j1] == first and labels1[i1, j1] == first
            if same:
                labels[i, j] = first
                continue
            # Trilinear: the four corners of the layer below, then those of the layer above; each sum is divided by
            # its own window weight.
            a, b, c, d = below[i0, j0], below[i0, j1], below[i1, j0], below[i1, j1]
            wi, wj = row_fraction[i], column_fraction[j]
            wa, wb, wc, wd = (1 - wi) * (1 - wj), (1 - wi) * wj, wi * (1 - wj), wi * wj
            lower = 1 - fraction
            if unweighted0:
                ua, ub, uc, ud = lower * wa, lower * wb, lower * wc, lower * wd
            else:
                ua, ub = lower * wa / weights0[i0, j0], lower * wb / weights0[i0, j1]
                uc, ud = lower * wc / weights0[i1, j0], lower * wd / weights0[i1, j1]
            for n in range(channels):
                mixed[n] = ua * _wide(a[n]) + ub * _wide(b[n]) + uc * _wide(c[n]) + ud * _wide(d[n])
            if fraction > 0:
                a, b, c, d = above[i0, j0], above[i0, j1], above[i1, j0], above[i1, j1]
                if unweighted1:
                    ua, ub, uc, ud = fraction * wa, fraction * wb, fraction * wc, fraction * wd
                else:
                    ua, ub = fraction * wa / weights1[i0, j0], fraction * wb / weights1[i0, j1]
                    uc, ud = fraction * wc / weights1[i1, j0], fraction * wd / weights1[i1, j1]
                for n in range(channels):
                    mixed[n] += ua * _wide(a[n]) + ub * _wide(b[n]) + uc * _wide(c[n]) + ud * _wide(d[n])
            if len(thresholds):
                labels[i, j] = _first_present(mixed, order, thresholds, np.float32(1))
            else:
                labels[i, j] = _argmax(mixed)
