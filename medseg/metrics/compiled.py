"""The loops of `overlap` and `surface`, compiled by numba; imported only through `kernels`."""

from __future__ import annotations

from medseg.optional import require

numba = require("numba", extra="fast")
_jit = numba.njit(nogil=True, cache=True)


@_jit
def count_pairs(truth, prediction, counts):  # type: ignore[no-untyped-def]
    """Add the pairs of two flat label maps to `counts`, `(classes, classes)`; the labels were looked at before.

    Neighbours are mostly equal: a run of equal pairs is counted once.
    """
    size = truth.size
    at = 0
    while at < size:
        row, column, start = truth[at], prediction[at], at
        at += 1
        while at < size and truth[at] == row and prediction[at] == column:
            at += 1
        counts[row, column] += at - start


@_jit
def surface_voxels(label, thick, found):  # type: ignore[no-untyped-def]
    """Write the label of each voxel that has a face neighbour of another one, or none, into `found`; see `surface`."""
    rows, columns, layers = label.shape
    for i in range(rows):
        for j in range(columns):
            outer = (thick[0] and (i == 0 or i == rows - 1)) or (thick[1] and (j == 0 or j == columns - 1))
            for k in range(layers):
                own = label[i, j, k]
                if own == 0:
                    continue
                edge = outer or (thick[2] and (k == 0 or k == layers - 1))
                edge = edge or (layers > 1 and (label[i, j, k - 1] != own or label[i, j, k + 1] != own))
                edge = edge or (columns > 1 and (label[i, j - 1, k] != own or label[i, j + 1, k] != own))
                edge = edge or (rows > 1 and (label[i - 1, j, k] != own or label[i + 1, j, k] != own))
                if edge:
                    found[i, j, k] = own


@_jit
def nearest(places, label, surface, steps, lengths, found):  # type: ignore[no-untyped-def]
    """Write the distance of each place to the nearest voxel of its label in `surface` into `found`; -1 if none is near.

    `steps`, `(M, 3)`, are walked in the order of their `lengths` until one ends on the label.
    """
    rows, columns, layers = surface.shape
    for n in range(len(places)):
        a, b, c = places[n]
        own = label[n]
        found[n] = -1.0
        for m in range(len(steps)):
            i, j, k = a + steps[m, 0], b + steps[m, 1], c + steps[m, 2]
            if 0 <= i < rows and 0 <= j < columns and 0 <= k < layers and surface[i, j, k] == own:
                found[n] = lengths[m]
                break
