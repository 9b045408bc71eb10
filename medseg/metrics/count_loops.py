"""Compile the loops of `overlap` and `surface` with numba; imported only through `label_arrays.loops`."""

from __future__ import annotations

from medseg.optional import require_numba

numba = require_numba()
_jit = numba.njit(nogil=True, cache=True)


@_jit
def count_pairs(truth, prediction, counts):  # type: ignore[no-untyped-def]
    """Add the pairs of two flat label maps to `counts`, `(classes, classes)`; labels must be in range.

    Neighbors are mostly equal: a run of equal pairs is counted once.
    """
    size = truth.size
    end = 0
    while end < size:
        row, column, start = truth[end], prediction[end], end
        end += 1
        while end < size and truth[end] == row and prediction[end] == column:
            end += 1
        counts[row, column] += end - start


@_jit
def surface_voxels(label, thick, surface):  # type: ignore[no-untyped-def]
    """Write the label of each voxel with a face neighbor of another label, or none, into `surface`.

    An axis that is one voxel long (not `thick`) has no neighbors.
    """
    rows, columns, layers = label.shape
    for i in range(rows):
        for j in range(columns):
            outer = (thick[0] and (i == 0 or i == rows - 1)) or (thick[1] and (j == 0 or j == columns - 1))
            for k in range(layers):
                value = label[i, j, k]
                if value == 0:
                    continue
                # At the border of the volume `edge` is true before a neighbor outside would be read.
                edge = outer or (thick[2] and (k == 0 or k == layers - 1))
                edge = edge or (layers > 1 and (label[i, j, k - 1] != value or label[i, j, k + 1] != value))
                edge = edge or (columns > 1 and (label[i, j - 1, k] != value or label[i, j + 1, k] != value))
                edge = edge or (rows > 1 and (label[i - 1, j, k] != value or label[i + 1, j, k] != value))
                if edge:
                    surface[i, j, k] = value


@_jit
def nearest(voxels, label, surface, steps, lengths, distances):  # type: ignore[no-untyped-def]
    """Write the distance of each voxel to the nearest voxel of its label in `surface`; -1 if none is in reach.

    `steps`, `(M, 3)`, are tried in the order of their `lengths` until one ends on the label.
    """
    rows, columns, layers = surface.shape
    for n in range(len(voxels)):
        a, b, c = voxels[n]
        value = label[n]
        distances[n] = -1.0
        for m in range(len(steps)):
            i, j, k = a + steps[m, 0], b + steps[m, 1], c + steps[m, 2]
            if 0 <= i < rows and 0 <= j < columns and 0 <= k < layers and surface[i, j, k] == value:
                distances[n] = lengths[m]
                break
