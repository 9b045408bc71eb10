"""The loops of `medseg.losses.voxels`, compiled by numba; imported only through that module.

One pass over tiles of a few hundred voxels, whose probabilities stay in the processor's cache: nothing of the size of
the logits is ever made but the gradient. Logits come as integers of their size, which stand for the bits of float32
or of bfloat16.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from medseg.optional import require

numba = require("numba", extra="fast")
extending = importlib.import_module("numba.extending")
TILE = 512
ROW = TILE + 16  # a little more than a tile: rows a power of two apart would fight for the same places in the cache
# Sums may be taken in any order, but NaN must stay NaN: it is how bad logits are found.
_jit = numba.njit(nogil=True, cache=True, fastmath={"nsz", "reassoc", "contract", "arcp"})
_strict = numba.njit(nogil=True, cache=True, fastmath={"contract"})


def _float(bits):  # type: ignore[no-untyped-def]
    """The float32 that the bits of a float32 or of a bfloat16 stand for."""
    return bits


def _bits(like, value):  # type: ignore[no-untyped-def]
    """The bits of a float32, or rounded to those of a bfloat16."""
    return value


_wide: Any = _float
_narrow: Any = _bits


@extending.overload(_float)
def _float_of(bits):  # type: ignore[no-untyped-def]
    if bits.bitwidth == 16:
        return lambda bits: np.uint32(np.uint32(np.uint16(bits)) << np.uint32(16)).view(np.float32)
    return lambda bits: np.int32(bits).view(np.float32)


@extending.overload(_bits)
def _bits_of(like, value):  # type: ignore[no-untyped-def]
    if like.dtype.bitwidth == 32:
        return lambda like, value: np.float32(value).view(np.int32)

    def rounded(like, value):  # type: ignore[no-untyped-def]
        whole = np.float32(value).view(np.uint32)
        odd = np.uint32((whole >> np.uint32(16)) & np.uint32(1))
        return np.int16(np.uint32(np.uint32(whole + np.uint32(0x7FFF)) + odd) >> np.uint32(16))

    return rounded


@_strict
def _exp(x):  # type: ignore[no-untyped-def]
    """The exponential of x from -87 to 0, to 1e-7, in steps that become vector instructions; NaN stays NaN.

    2^n times a polynomial in what is left, with the coefficients of Cephes' expf (S. L. Moshier).
    """
    x = np.float32(-87.0) if x < np.float32(-87.0) else x
    shifted = x * np.float32(1.44269504) + np.float32(12582912.0)  # the nearest integer stands in the lower bits
    n = shifted - np.float32(12582912.0)
    r = x - n * np.float32(0.693359375)
    r = r + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1.0)
    power = np.uint32(np.uint32(np.float32(shifted).view(np.uint32) << np.uint32(23)) + np.uint32(0x3F800000))
    return p * power.view(np.float32)


@_jit
def _logits(bits, last, low, count, values, most):  # type: ignore[no-untyped-def]
    """Logits of `count` voxels from `low` on into `values`, `(C, ROW)`, and the largest of each into `most`."""
    for i in range(count):
        most[i] = np.float32(-3.0e38)
    if last:
        for i in range(count):
            voxel = bits[low + i]
            for c in range(voxel.size):
                values[c, i] = _wide(voxel[c])
    for c in range(values.shape[0]):
        row = values[c]
        if not last:
            source = bits[c]
            for i in range(count):
                row[i] = _wide(source[low + i])
        for i in range(count):
            most[i] = row[i] if row[i] > most[i] else most[i]


@_jit
def _exponentials(values, count, most, total):  # type: ignore[no-untyped-def]
    """Logits to exp(logit - largest), and their sums into `total`."""
    for i in range(count):
        total[i] = np.float32(0.0)
    for c in range(values.shape[0]):
        row = values[c]
        for i in range(count):
            e = _exp(row[i] - most[i])
            row[i] = e
            total[i] += e


@_jit
def _focus(p, gamma):  # type: ignore[no-untyped-def]
    """How much of the slope of -log p is left in that of -(1 - p)^gamma log p."""
    if gamma == 0:
        return np.float32(1.0)
    rest = np.float32(1.0) - p
    if rest <= 0:
        return np.float32(0.0)
    least = max(p, np.float32(1e-37))
    return rest**gamma - gamma * p * rest ** (gamma - np.float32(1.0)) * np.log(least)


@_jit
def _background(values, count, merged, ground):  # type: ignore[no-untyped-def]
    """What the background and the classes merged into it have together."""
    for i in range(count):
        ground[i] = values[0, i]
    for c in range(1, values.shape[0]):
        if merged[c]:
            row = values[c]
            for i in range(count):
                ground[i] += row[i]


@_jit
def sums(bits, last, target, start, stop, merged, hard, soft, squared, gamma, both, mass, cross):  # type: ignore[no-untyped-def]
    """Add up what `voxels.sums` gives, over tiles `start` to `stop` of all cases together."""
    classes, voxels = merged.shape[1], target.shape[1]
    tiles = (voxels + TILE - 1) // TILE
    values = np.empty((classes, ROW), np.float32)
    most = np.empty(TILE, np.float32)
    total = np.empty(TILE, np.float32)
    gain = np.empty(TILE, np.float32)
    own = np.empty(TILE, np.float32)
    ground = np.empty(TILE, np.float32)
    for tile in range(start, stop):
        b, low = tile // tiles, tile % tiles * TILE
        count = min(TILE, voxels - low)
        truth, shared, smooth = target[b, low : low + count], merged[b].any(), soft[b].any()
        _logits(bits[b], last, low, count, values, most)
        for i in range(count):
            t = truth[i]
            counts = t > 0 or (t == 0 and not shared)
            own[i] = values[t, i] - most[i] if counts else np.float32(0.0)
            gain[i] = np.float32(0.0)
        if smooth:
            for c in range(1 if shared else 0, classes):
                row, share = values[c], soft[b, c]
                if share != 0:
                    for i in range(count):
                        gain[i] += share * (row[i] - most[i])
        _exponentials(values, count, most, total)
        if shared:
            _background(values, count, merged[b], ground)
            for i in range(count):
                values[0, i] = ground[i]
                if truth[i] == 0:
                    own[i] = np.log(ground[i])
                if soft[b, 0] != 0:
                    gain[i] += soft[b, 0] * np.log(ground[i])
        whole, loss = soft[b].sum(), 0.0
        for i in range(count):
            t = truth[i]
            if t >= 0:
                logs = np.log(total[i])
                total[i] = np.float32(1.0) / total[i]
                p = values[t, i] * total[i]
                both[b, t] += p
                focus = max(np.float32(1.0) - p, np.float32(0.0)) ** gamma if gamma > 0 else np.float32(1.0)
                loss += hard[t] * focus * (logs - own[i]) + whole * logs - gain[i]
            else:
                total[i] = np.float32(0.0)
        cross[b] += loss
        for c in range(classes):
            if merged[b, c]:
                continue
            row, found = values[c], np.float32(0.0)
            if squared:
                for i in range(count):
                    found += (row[i] * total[i]) * (row[i] * total[i])
            else:
                for i in range(count):
                    found += row[i] * total[i]
            mass[b, c] += found


@_jit
def gradient(bits, last, target, start, stop, merged, hard, soft, squared, gamma, both, mass, cross, out):  # type: ignore[no-untyped-def]
    """Write the gradient of tiles `start` to `stop` into `out`; see `voxels.gradient`."""
    classes, voxels = merged.shape[1], target.shape[1]
    tiles = (voxels + TILE - 1) // TILE
    values = np.empty((classes, ROW), np.float32)
    most = np.empty(TILE, np.float32)
    total = np.empty(TILE, np.float32)
    shift = np.empty(TILE, np.float32)
    ground = np.ones(TILE, np.float32)
    held = np.empty(TILE, np.float32)
    pull = np.empty(TILE, np.float32)
    two = np.float32(2.0)
    for tile in range(start, stop):
        b, low = tile // tiles, tile % tiles * TILE
        count = min(TILE, voxels - low)
        truth, shared, rate = target[b, low : low + count], merged[b].any(), cross[b]
        _logits(bits[b], last, low, count, values, most)
        _exponentials(values, count, most, total)
        for i in range(count):
            total[i] = np.float32(1.0) / total[i] if truth[i] >= 0 else np.float32(0.0)
            shift[i] = np.float32(0.0)
        for c in range(classes):
            row, slope = values[c], mass[b, c]
            for i in range(count):
                row[i] *= total[i]
            if not squared:
                for i in range(count):
                    shift[i] -= slope * row[i]
            elif not (shared and (c == 0 or merged[b, c])):
                for i in range(count):
                    shift[i] -= two * slope * row[i] * row[i]
        if shared:
            _background(values, count, merged[b], ground)
            if squared:
                for i in range(count):
                    shift[i] -= two * mass[b, 0] * ground[i] * ground[i]
        whole = soft[b].sum()
        for i in range(count):  # what all classes of a voxel have in common
            t = truth[i]
            if t >= 0:
                held[i] = ground[i] if shared and t == 0 else values[t, i]
                pull[i] = both[b, t] * held[i] - rate * hard[t] * _focus(held[i], gamma)
                shift[i] += rate * whole - pull[i]
                total[i] = np.float32(1.0)
        for c in range(classes):
            row, slope = values[c], mass[b, c]
            if shared and (c == 0 or merged[b, c]):
                for i in range(count):
                    t = truth[i]
                    if t >= 0:
                        of_it = row[i] / ground[i]
                        each = two * slope * ground[i] if squared else slope
                        found = row[i] * (each + shift[i]) - rate * soft[b, 0] * of_it
                        row[i] = found + (of_it * pull[i] if t == 0 else np.float32(0.0))
                continue
            own = rate * soft[b, c]
            if squared:
                for i in range(count):
                    row[i] = row[i] * (two * slope * row[i] + shift[i]) - own * total[i]
            else:
                for i in range(count):
                    row[i] = row[i] * (slope + shift[i]) - own * total[i]
        for i in range(count):
            t = truth[i]
            if t > 0 or (t == 0 and not shared):
                values[t, i] += pull[i]
        if last:
            for i in range(count):
                voxel = out[b, low + i]
                for c in range(classes):
                    voxel[c] = _narrow(voxel, values[c, i])
        else:
            for c in range(classes):
                row, into = values[c], out[b, c]
                for i in range(count):
                    into[low + i] = _narrow(into, row[i])
