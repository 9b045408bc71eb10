"""The loops of `medseg.inference.kernels`, compiled by numba; imported only through that module."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from medseg.optional import require

numba = require("numba", extra="fast")
extending = importlib.import_module("numba.extending")
# Not numba's own threads: they and torch's wait by spinning, and where both do, on two cores or beside other work,
# a volume takes ten times as long. `kernels` runs these loops in threads that sleep.
# NaN is no concern: the input was looked at. Sums may be taken in any order.
_jit = numba.njit(nogil=True, cache=True, fastmath={"nnan", "ninf", "nsz", "reassoc", "contract", "arcp"})


def _float(value):  # type: ignore[no-untyped-def]
    """The float32 of a logit: itself, or what the bits of a bfloat16 stand for."""
    return value


_wide: Any = _float


@extending.overload(_float)
def _float_of(value):  # type: ignore[no-untyped-def]
    if isinstance(value, numba.types.Integer):
        return lambda value: np.uint32(np.uint32(np.uint16(value)) << np.uint32(16)).view(np.float32)
    return lambda value: value


@_jit
def best(bits, found):  # type: ignore[no-untyped-def]
    """Write the largest channel of each voxel into `found`, `(I, J)`.

    `bits`, `(I, J, C)`, are float32 or bfloat16 seen as integers of their size: with the lower bits of negative
    ones turned over, integers are in the order of the floats, and their maximum takes fewer steps.
    """
    height, width, channels = bits.shape
    sign = bits.itemsize * 8 - 1
    lower = (1 << sign) - 1
    for i in range(height):
        for j in range(width):
            voxel = bits[i, j]
            most = voxel[0] ^ ((voxel[0] >> sign) & lower)
            for c in range(1, channels):
                most = max(most, voxel[c] ^ ((voxel[c] >> sign) & lower))
            most ^= (most >> sign) & lower
            at = 0
            while voxel[at] != most:
                at += 1
            found[i, j] = at


@_jit
def blend(sums, counts, tile, weights, row, column, top, left, height, width):  # type: ignore[no-untyped-def]
    """Add a part of `tile`, from `(top, left)` on, to `sums` at `(row, column)`, see `add_window`."""
    channels = sums.shape[2]
    for i in range(height):
        for j in range(width):
            into, part, weight = sums[row + i, column + j], tile[top + i, left + j], weights[top + i, left + j]
            if counts[row + i, column + j] == 0:
                for c in range(channels):
                    into[c] = weight * _wide(part[c])
            else:
                for c in range(channels):
                    into[c] += weight * _wide(part[c])
            counts[row + i, column + j] += weight


@_jit
def _largest(mixed):  # type: ignore[no-untyped-def]
    channels = len(mixed)
    most = mixed[0]
    for n in range(1, channels):
        most = max(most, mixed[n])
    at = 0
    while mixed[at] != most and at < channels - 1:  # a network may give NaN
        at += 1
    return at


@_jit
def _uppermost(mixed, upper, cuts, weight):  # type: ignore[no-untyped-def]
    for n in range(len(upper)):
        if _wide(mixed[upper[n]]) > cuts[upper[n]] * weight:
            return upper[n] + 1
    return 0


@_jit
def painted(sums, weights, upper, cuts, found):  # type: ignore[no-untyped-def]
    """Write the uppermost channel above its cut of each voxel into `found`, plus 1; 0 where there is none."""
    one = weights.size == 1
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            found[i, j] = _uppermost(sums[i, j], upper, cuts, np.float32(1) if one else weights[i, j])


@_jit
def between(  # type: ignore[no-untyped-def]
    below, above, weight0, weight1, best0, best1, part, upper, cuts, row, rpart, rin, col, cpart, cin, found
):
    """Write the labels of a layer between two others into `found`; see `labels_between`."""
    height, width, channels = below.shape
    one0, one1 = weight0.size == 1, weight1.size == 1
    for i in range(len(row)):
        mixed = np.empty(channels, np.float32)
        i0 = row[i]
        i1 = min(i0 + 1, height - 1) if rpart[i] > 0 else i0
        for j in range(len(col)):
            if not (rin[i] and cin[j]):
                found[i, j] = 0
                continue
            j0 = col[j]
            j1 = min(j0 + 1, width - 1) if cpart[j] > 0 else j0
            first = best0[i0, j0]
            same = best0[i1, j0] == first and best0[i0, j1] == first and best0[i1, j1] == first
            if same and part > 0:
                same = best1[i0, j0] == first and best1[i1, j0] == first
                same = same and best1[i0, j1] == first and best1[i1, j1] == first
            if same:
                found[i, j] = first
                continue
            a, b, c, d = below[i0, j0], below[i0, j1], below[i1, j0], below[i1, j1]
            wi, wj = rpart[i], cpart[j]
            wa, wb, wc, wd = (1 - wi) * (1 - wj), (1 - wi) * wj, wi * (1 - wj), wi * wj
            near = 1 - part
            if one0:
                ua, ub, uc, ud = near * wa, near * wb, near * wc, near * wd
            else:
                ua, ub = near * wa / weight0[i0, j0], near * wb / weight0[i0, j1]
                uc, ud = near * wc / weight0[i1, j0], near * wd / weight0[i1, j1]
            for n in range(channels):
                mixed[n] = ua * _wide(a[n]) + ub * _wide(b[n]) + uc * _wide(c[n]) + ud * _wide(d[n])
            if part > 0:
                a, b, c, d = above[i0, j0], above[i0, j1], above[i1, j0], above[i1, j1]
                if one1:
                    ua, ub, uc, ud = part * wa, part * wb, part * wc, part * wd
                else:
                    ua, ub = part * wa / weight1[i0, j0], part * wb / weight1[i0, j1]
                    uc, ud = part * wc / weight1[i1, j0], part * wd / weight1[i1, j1]
                for n in range(channels):
                    mixed[n] += ua * _wide(a[n]) + ub * _wide(b[n]) + uc * _wide(c[n]) + ud * _wide(d[n])
            found[i, j] = _uppermost(mixed, upper, cuts, np.float32(1)) if len(cuts) else _largest(mixed)
