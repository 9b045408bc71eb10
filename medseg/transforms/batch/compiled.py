"""The loop of `medseg.transforms.batch.warp`, compiled by numba; imported only through that module."""

from __future__ import annotations

import numpy as np

from medseg.optional import require

numba = require("numba", extra="fast")
# Without numba's own threads, which wait by spinning; `warp` runs this in threads that sleep. Images were looked at
# for NaN. Sums may be taken in any order.
_jit = numba.njit(nogil=True, cache=True, fastmath={"nnan", "ninf", "nsz", "reassoc", "contract", "arcp"})


@_jit
def _between(start, step, most, low, high):  # type: ignore[no-untyped-def]
    """The part of `low..high` whose places `start + step * j` surely lie from 0 to below `most`."""
    if step == 0:
        return (low, high) if 0 <= start < most else (low, low)
    first, last = -start / step, (most - start) / step
    if step < 0:
        first, last = last, first
    # in floating point, before it may be too large for a whole number; one pixel less at each end is on the safe side
    first, last = max(first + 1, low), min(last - 1, high)
    return (int(np.ceil(first)), int(np.floor(last))) if first < last else (low, low)


@_jit
def warp(image, label, where, moved, found):  # type: ignore[no-untyped-def]
    """Fill `moved` from `image`, `(C, H, W)`, and `found` from `label`, `(L, H, W)`; `where` as in `matrices`."""
    channels, height, width = image.shape
    kinds = label.shape[0]
    pixels, values = image.reshape(channels, height * width), label.reshape(kinds, height * width)
    corner, nearest = np.empty(width, np.int32), np.empty(width, np.int32)
    below, beside = np.empty(width, np.float32), np.empty(width, np.float32)
    mid_i, mid_j = (height - 1) / 2, (width - 1) / 2
    step_i, step_j = where[0, 1], where[1, 1]
    for i in range(height):
        start_i = where[0, 0] * (i - mid_i) - step_i * mid_j + where[0, 2] + mid_i
        start_j = where[1, 0] * (i - mid_i) - step_j * mid_j + where[1, 2] + mid_j
        low, high = _between(start_i, step_i, height - 1, 0, width)
        low, high = _between(start_j, step_j, width - 1, low, high)
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
            plane_of, row_of = values[c], found[c, i]
            for j in range(low, high):
                row_of[j] = plane_of[np.uint32(nearest[j])]
        for j in range(width):
            if low <= j < high:
                continue
            at_i, at_j = start_i + step_i * j, start_j + step_j * j
            outside = not (-1 < at_i < height and -1 < at_j < width)
            top = 0 if outside else int(np.floor(at_i))
            left = 0 if outside else int(np.floor(at_j))
            for c in range(channels):
                total = np.float32(0)
                for k in range(0 if outside else 4):
                    y, x = top + k // 2, left + k % 2
                    if 0 <= y < height and 0 <= x < width:
                        share = (1 - abs(at_i - y)) * (1 - abs(at_j - x))
                        total += image[c, y, x] * np.float32(share)
                moved[c, i, j] = total
            near_i = -1 if outside else int(np.rint(at_i))
            near_j = -1 if outside else int(np.rint(at_j))
            inside = 0 <= near_i < height and 0 <= near_j < width
            for c in range(kinds):
                found[c, i, j] = label[c, near_i, near_j] if inside else 0
