"""Compile the loops of `medseg.losses.voxel_sums` with numba; imported only through that module.

One pass over tiles of a few hundred voxels, whose probabilities stay in the processor's cache: nothing of the size of
the logits ever exists but the gradient. Logits come as integers of their size, which are the bits of float32 or of
bfloat16.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from medseg.optional import require_numba

numba = require_numba()
extending = importlib.import_module("numba.extending")
TILE = 512
ROW = TILE + 16  # more than a tile: rows a power of two apart would evict each other from the cache
# Sums may be taken in any order, but NaN must stay NaN: it is how bad logits are detected.
_jit = numba.njit(nogil=True, cache=True, fastmath={"nsz", "reassoc", "contract", "arcp"})
_strict = numba.njit(nogil=True, cache=True, fastmath={"contract"})


def _float(bits):  # type: ignore[no-untyped-def]
    """Return the float32 value of the bits of a float32 or of a bfloat16."""
    return bits


def _bits(like, value):  # type: ignore[no-untyped-def]
    """Return the bits of a float32, or those of the nearest bfloat16, as `like` needs."""
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
        # A bfloat16 is the upper half of a float32; half a unit is added, and ties go to the even neighbor.
        bits = np.float32(value).view(np.uint32)
        odd = np.uint32((bits >> np.uint32(16)) & np.uint32(1))
        return np.int16(np.uint32(np.uint32(bits + np.uint32(0x7FFF)) + odd) >> np.uint32(16))

    return rounded


@_strict
def _exp(x):  # type: ignore[no-untyped-def]
    """Return the exponential of x from -87 to 0, to 1e-7, in steps that become vector instructions; NaN stays NaN.

    2^n times a polynomial in the remainder, with the coefficients of Cephes' expf (S. L. Moshier).
    """
    x = np.float32(-87.0) if x < np.float32(-87.0) else x
    shifted = x * np.float32(1.44269504) + np.float32(12582912.0)  # rounds: the nearest integer is in the lower bits
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
def _load_logits(bits, channels_last, low, count, values, largest):  # type: ignore[no-untyped-def]
    """Write the logits of `count` voxels from `low` on into `values`, `(C, ROW)`, and their maxima into `largest`."""
    for i in range(count):
        largest[i] = np.float32(-3.0e38)
    if channels_last:
        for i in range(count):
            voxel = bits[low + i]
            for c in range(voxel.size):
                values[c, i] = _wide(voxel[c])
    for c in range(values.shape[0]):
        row = values[c]
        if not channels_last:
            source = bits[c]
            for i in range(count):
                row[i] = _wide(source[low + i])
        for i in range(count):
            largest[i] = row[i] if row[i] > largest[i] else largest[i]


@_jit
def _exponentials(values, count, largest, total):  # type: ignore[no-untyped-def]
    """Replace logits by exp(logit - largest), which cannot overflow, and write their sums into `total`."""
    for i in range(count):
        total[i] = np.float32(0.0)
    for c in range(values.shape[0]):
        row = values[c]
        for i in range(count):
            e = _exp(row[i] - largest[i])
            row[i] = e
            total[i] += e


@_jit
def _focal_slope(p, gamma):  # type: ignore[no-untyped-def]
    """Return the slope of -(1 - p)^gamma log p as a share of the slope of -log p."""
    if gamma == 0:
        return np.float32(1.0)
    q = np.float32(1.0) - p
    if q <= 0:
        return np.float32(0.0)
    positive = max(p, np.float32(1e-37))
    return q**gamma - gamma * p * q ** (gamma - np.float32(1.0)) * np.log(positive)


@_jit
def _add_background(values, count, merged, background):  # type: ignore[no-untyped-def]
    """Write what the background and the classes merged into it have together into `background`."""
    for i in range(count):
        background[i] = values[0, i]
    for c in range(1, values.shape[0]):
        if merged[c]:
            row = values[c]
            for i in range(count):
                background[i] += row[i]


@_jit
def sums(  # type: ignore[no-untyped-def]
    bits,
    channels_last,
    target,
    start,
    stop,
    merged,
    hard,
    soft,
    squared,
    gamma,
    intersection,
    prediction,
    cross_entropy,
):
    """Add the sums of tiles `start` to `stop`, of all cases together; see `voxel_sums.sums`."""
    classes, voxels = merged.shape[1], target.shape[1]
    tiles = (voxels + TILE - 1) // TILE
    values = np.empty((classes, ROW), np.float32)
    largest = np.empty(TILE, np.float32)
    total = np.empty(TILE, np.float32)
    soft_gain = np.empty(TILE, np.float32)
    target_logit = np.empty(TILE, np.float32)
    background = np.empty(TILE, np.float32)
    for tile in range(start, stop):
        b, low = tile // tiles, tile % tiles * TILE
        count = min(TILE, voxels - low)
        labels, shared, smooth = target[b, low : low + count], merged[b].any(), soft[b].any()
        _load_logits(bits[b], channels_last, low, count, values, largest)
        # The exponentials overwrite the logits: what the cross-entropy needs of these is read before.
        for i in range(count):
            t = labels[i]
            counts = t > 0 or (t == 0 and not shared)
            target_logit[i] = values[t, i] - largest[i] if counts else np.float32(0.0)
            soft_gain[i] = np.float32(0.0)
        if smooth:
            for c in range(1 if shared else 0, classes):
                row, weight = values[c], soft[b, c]
                if weight != 0:
                    for i in range(count):
                        soft_gain[i] += weight * (row[i] - largest[i])
        _exponentials(values, count, largest, total)
        if shared:
            _add_background(values, count, merged[b], background)
            for i in range(count):
                values[0, i] = background[i]
                if labels[i] == 0:
                    target_logit[i] = np.log(background[i])
                if soft[b, 0] != 0:
                    soft_gain[i] += soft[b, 0] * np.log(background[i])
        soft_total, loss = soft[b].sum(), 0.0
        for i in range(count):
            t = labels[i]
            if t >= 0:
                log_total = np.log(total[i])
                total[i] = np.float32(1.0) / total[i]
                p = values[t, i] * total[i]
                intersection[b, t] += p
                focus = max(np.float32(1.0) - p, np.float32(0.0)) ** gamma if gamma > 0 else np.float32(1.0)
                loss += hard[t] * focus * (log_total - target_logit[i]) + soft_total * log_total - soft_gain[i]
            else:
                total[i] = np.float32(0.0)  # so that the voxel's probabilities are 0 below
        cross_entropy[b] += loss
        for c in range(classes):
            if merged[b, c]:
                continue
            row, class_sum = values[c], np.float32(0.0)
            if squared:
                for i in range(count):
                    class_sum += (row[i] * total[i]) * (row[i] * total[i])
            else:
                for i in range(count):
                    class_sum += row[i] * total[i]
            prediction[b, c] += class_sum


@_jit
def gradient(  # type: ignore[no-untyped-def]
    bits, channels_last, target, start, stop, merged, hard, soft, squared, gamma,
    intersection, prediction, cross_entropy, out,
):  # fmt: skip
    """Write the gradient of tiles `start` to `stop` into `out`; see `voxel_sums.gradient`.

    `intersection`, `prediction` and `cross_entropy` are the slopes of the loss in the sums.
    """
    classes, voxels = merged.shape[1], target.shape[1]
    tiles = (voxels + TILE - 1) // TILE
    values = np.empty((classes, ROW), np.float32)
    largest = np.empty(TILE, np.float32)
    total = np.empty(TILE, np.float32)
    shift = np.empty(TILE, np.float32)
    background = np.ones(TILE, np.float32)
    target_p = np.empty(TILE, np.float32)
    pull = np.empty(TILE, np.float32)
    two = np.float32(2.0)
    for tile in range(start, stop):
        b, low = tile // tiles, tile % tiles * TILE
        count = min(TILE, voxels - low)
        labels, shared, rate = target[b, low : low + count], merged[b].any(), cross_entropy[b]
        _load_logits(bits[b], channels_last, low, count, values, largest)
        _exponentials(values, count, largest, total)
        for i in range(count):
            total[i] = np.float32(1.0) / total[i] if labels[i] >= 0 else np.float32(0.0)
            shift[i] = np.float32(0.0)
        for c in range(classes):
            row, slope = values[c], prediction[b, c]
            for i in range(count):
                row[i] *= total[i]  # a probability from here on
            if not squared:
                for i in range(count):
                    shift[i] -= slope * row[i]
            elif not (shared and (c == 0 or merged[b, c])):
                for i in range(count):
                    shift[i] -= two * slope * row[i] * row[i]
        if shared:
            _add_background(values, count, merged[b], background)
            if squared:
                for i in range(count):
                    shift[i] -= two * prediction[b, 0] * background[i] * background[i]
        soft_total = soft[b].sum()
        for i in range(count):  # the terms that all classes of a voxel have in common
            t = labels[i]
            if t >= 0:
                target_p[i] = background[i] if shared and t == 0 else values[t, i]
                pull[i] = intersection[b, t] * target_p[i] - rate * hard[t] * _focal_slope(target_p[i], gamma)
                shift[i] += rate * soft_total - pull[i]
                total[i] = np.float32(1.0)
        for c in range(classes):
            row, slope = values[c], prediction[b, c]
            if shared and (c == 0 or merged[b, c]):
                # The background's gradient, shared by the classes merged into it.
                for i in range(count):
                    t = labels[i]
                    if t >= 0:
                        share = row[i] / background[i]
                        class_slope = two * slope * background[i] if squared else slope
                        value = row[i] * (class_slope + shift[i]) - rate * soft[b, 0] * share
                        row[i] = value + (share * pull[i] if t == 0 else np.float32(0.0))
                continue
            soft_rate = rate * soft[b, c]
            if squared:
                for i in range(count):
                    row[i] = row[i] * (two * slope * row[i] + shift[i]) - soft_rate * total[i]
            else:
                for i in range(count):
                    row[i] = row[i] * (slope + shift[i]) - soft_rate * total[i]
        for i in range(count):
            t = labels[i]
            if t > 0 or (t == 0 and not shared):
                values[t, i] += pull[i]
        if channels_last:
            for i in range(count):
                voxel = out[b, low + i]
                for c in range(classes):
                    voxel[c] = _narrow(voxel, values[c, i])
        else:
            for c in range(classes):
                row, channel = values[c], out[b, c]
                for i in range(count):
                    channel[low + i] = _narrow(channel, row[i])
