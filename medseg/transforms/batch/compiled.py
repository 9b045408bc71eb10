"""The loop of `medseg.transforms.batch.warp`, compiled by numba; imported only through that module."""

from __future__ import annotations

import numpy as np

from medseg.optional import require_numba

numba = require_numba()
# Without numba's own threads, which wait by spinning; `warp` runs this in threads that sleep. Images were looked at
# for NaN. Sums may be taken in any order.
_jit = numba.njit(nogil=True, cache=True, fastmath={"nnan", "ninf", "nsz", "reassoc", "contract", "arcp"})


@_jit
def _between(start, step, lowest, highest, low, high, margin):  # type: ignore[no-untyped-def]
    """Return the part of `low..high` whose `start + step * j` is from `lowest` to `highest`, less `margin` at each end.

    With a margin of 1 all of it surely does, with one of -1 all else surely does not.
    """
    if abs(step) < 1e-9:  # as good as none; divided by it, numbers would have no end
        return (low, high) if lowest + margin * 1e-3 <= start < highest - margin * 1e-3 else (low, low)
    first, last = (lowest - start) / step, (highest - start) / step
    if step < 0:
        first, last = last, first
    # in floating point, before it may be too large for a whole number
    first, last = max(first + margin, low), min(last - margin, high)
    return (int(np.ceil(first)), int(np.floor(last))) if first < last else (low, low)


@_jit
def _at_the_border(image, label, at_i, at_j, moved, warped):  # type: ignore[no-untyped-def]
    """Interpolate one position that may have fewer than four neighbors in the image, or none."""
    channels, height, width = image.shape
    touches = -1 < at_i < height and -1 < at_j < width
    top, left = (int(np.floor(at_i)), int(np.floor(at_j))) if touches else (0, 0)
    for c in range(channels):
        total = np.float32(0)
        for k in range(4 if touches else 0):
            y, x = top + k // 2, left + k % 2
            if 0 <= y < height and 0 <= x < width:
                total += image[c, y, x] * np.float32((1 - abs(at_i - y)) * (1 - abs(at_j - x)))
        moved[c] = total
    near_i, near_j = (int(np.rint(at_i)), int(np.rint(at_j))) if touches else (-1, -1)
    inside = 0 <= near_i < height and 0 <= near_j < width
    for c in range(label.shape[0]):
        warped[c] = label[c, near_i, near_j] if inside else 0


@_jit
def _read(values):  # type: ignore[no-untyped-def]
    """Read something of every line of the cache, in order.

    The processor fetches ahead of that. Of pixels along a slanted line it waits for each, twice as long in all.
    """
    total, step = 0.0, max(1, 64 // values.itemsize)
    for number in range(0, values.size, step):
        total += values[number]
    return total


@_jit
def warp(image, label, where, moved, warped):  # type: ignore[no-untyped-def]
    """Fill `moved` from `image`, `(C, H, W)`, and `warped` from `label`, `(L, H, W)`; `where` as in `matrices`.

    Returns:
        a number that means nothing, so that what is read ahead is not left out.
    """
    channels, height, width = image.shape
    kinds = label.shape[0]
    pixels, values = image.reshape(channels, height * width), label.reshape(kinds, height * width)
    ahead = _read(image.reshape(image.size)) + _read(label.reshape(label.size))
    corner, nearest = np.empty(width, np.int32), np.empty(width, np.int32)
    below, beside = np.empty(width, np.float32), np.empty(width, np.float32)
    mid_i, mid_j = (height - 1) / 2, (width - 1) / 2
    step_i, step_j = where[0, 1], where[1, 1]
    for i in range(height):
        start_i = where[0, 0] * (i - mid_i) - step_i * mid_j + where[0, 2] + mid_i
        start_j = where[1, 0] * (i - mid_i) - step_j * mid_j + where[1, 2] + mid_j
        # first to last: all that may see the image; low to high: with four pixels of it around them
        first, last = _between(start_i, step_i, -1, height, 0, width, -1)
        first, last = _between(start_j, step_j, -1, width, first, last, -1)
        low, high = _between(start_i, step_i, 0, height - 1, first, last, 1)
        low, high = _between(start_j, step_j, 0, width - 1, low, high, 1)
        for j in range(low, high):
            at_i, at_j = start_i + step_i * j, start_j + step_j * j
            top, left = np.int32(at_i), np.int32(at_j)
            below[j], beside[j] = np.float32(at_i - top), np.float32(at_j - left)
            corner[j] = top * np.int32(width) + left
            nearest[j] = np.int32(np.rint(at_i)) * np.int32(width) + np.int32(np.rint(at_j))
        for c in range(channels):
            plane, row = pixels[c], moved[c, i]
            for j in range(low, high):
                at = np.uint32(corner[j])
                a, b = plane[at], plane[at + np.uint32(1)]
                d, e = plane[at + np.uint32(width)], plane[at + np.uint32(width) + np.uint32(1)]
                upper, lower = a + beside[j] * (b - a), d + beside[j] * (e - d)
                row[j] = upper + below[j] * (lower - upper)
        for c in range(kinds):
            plane_of, row_of = values[c], warped[c, i]
            for j in range(low, high):
                row_of[j] = plane_of[np.uint32(nearest[j])]
        moved[:, i, :first], moved[:, i, last:] = 0, 0
        warped[:, i, :first], warped[:, i, last:] = 0, 0
        for j in range(first, low):
            _at_the_border(image, label, start_i + step_i * j, start_j + step_j * j, moved[:, i, j], warped[:, i, j])
        for j in range(high, last):
            _at_the_border(image, label, start_i + step_i * j, start_j + step_j * j, moved[:, i, j], warped[:, i, j])
    return ahead
