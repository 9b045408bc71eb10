"""Crop volumes to the body and resample them to another spacing, without torch.

The result lies on the grid that MONAI's `Spacingd` gives, so that a set that was resampled beforehand
trains as one that is resampled at each start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.errors import GeometryError
from medseg.grid import Grid

Array = npt.NDArray[Any]
BODY_HU = -300.0  # above air and clothes, below fat


def crop(volumes: Sequence[Array], grid: Grid, box: Sequence[slice]) -> tuple[list[Array], Grid]:
    """Cut a box out of volumes; return the parts and their grid."""
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    cut = [volume[tuple(box)] for volume in volumes]
    return cut, Grid(cut[0].shape, affine)


def body_box(hu: Array, label: Array, grid: Grid, margin_mm: float = 10.0) -> tuple[slice, slice, slice]:
    """Return the box of the body: the largest connected part above -300 HU, all labels, and a margin.

    It is the whole volume if nothing is denser than air.

    Args:
        hu: CT in HU, `(I, J, K)`.
        label: class indices, `(I, J, K)`; no label is cut off.
        grid: of both.
        margin_mm: width of the margin.
    """
    step = [max(1, round(4.0 / spacing)) for spacing in grid.spacing]  # 4 mm are fine enough for a box
    coarse = hu[:: step[0], :: step[1], :: step[2]] > BODY_HU
    parts, count = ndimage.label(coarse)
    box = []
    sizes = np.bincount(parts.ravel())[1:]
    body = parts == int(sizes.argmax()) + 1 if count else coarse
    for axis in range(3):
        others = tuple(index for index in range(3) if index != axis)
        in_body = np.flatnonzero(body.any(axis=others)) * step[axis]
        labeled = np.flatnonzero((label > 0).any(axis=others))
        size, margin = grid.shape[axis], round(margin_mm / grid.spacing[axis]) + step[axis] - 1
        low = int(in_body[0]) - margin if count else 0
        high = int(in_body[-1]) + margin + 1 if count else size
        if labeled.size:
            low, high = min(low, int(labeled[0])), max(high, int(labeled[-1]) + 1)
        box.append(slice(max(low, 0), min(high, size)))
    return box[0], box[1], box[2]


def resample(volumes: Sequence[Array], grid: Grid, spacing: Sequence[float]) -> tuple[list[Array], Grid]:
    """Resample volumes to another spacing; the center of the first voxel keeps its position.

    Args:
        volumes: `(I, J, K)`; floats are interpolated linearly, integers take the nearest.
        grid: of the volumes.
        spacing: mm along each array axis; a value of 0 or less leaves that axis as it is.

    Raises:
        GeometryError: not three numbers.
    """
    if len(spacing) != 3:
        raise GeometryError("spacing", "three lengths in mm are needed", f"got {spacing}")
    affine, results = grid.affine.copy(), list(volumes)
    for axis, (old, new) in enumerate(zip(grid.spacing, spacing, strict=True)):
        if new <= 0 or abs(new - old) < 1e-4 * old:
            continue
        affine[:3, axis] *= new / old
        count = round((grid.shape[axis] - 1) * old / new + 1)
        positions = np.arange(count) * (new / old)
        results = [_interpolate(volume, positions, axis) for volume in results]
    return results, Grid(results[0].shape, affine)


def _interpolate(volume: Array, positions: npt.NDArray[np.floating[Any]], axis: int) -> Array:
    """Return the volume at fractional positions along one axis; beyond the ends the outermost slice is repeated."""
    last = volume.shape[axis] - 1
    if volume.dtype.kind in "iub":
        return np.asarray(np.take(volume, np.clip(np.rint(positions), 0, last).astype(np.int64), axis=axis))
    low = np.clip(np.floor(positions), 0, last).astype(np.int64)
    shape = [1, 1, 1]
    shape[axis] = -1
    part = np.clip(positions - low, 0, 1).astype(volume.dtype).reshape(shape)
    below = np.take(volume, low, axis=axis)
    above = np.take(volume, np.minimum(low + 1, last), axis=axis)
    above -= below
    above *= part
    above += below
    return np.asarray(above)
