"""Where prediction and truth agree and where they do not, in three planes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from medseg.grid import Grid, to_ras
from medseg.report.render import HU_WINDOW, grey, overlay

Array = npt.NDArray[Any]
# Told apart without telling red from green, on grey and on black.
COLOURS = {"right": (86, 180, 160), "missed": (230, 85, 60), "false": (80, 140, 240), "confused": (240, 200, 60)}
_MARGIN_MM, _SIDE = 15.0, 420  # around what is labelled; the longer side of a picture in pixels


def kinds(truth: Array, prediction: Array) -> npt.NDArray[np.uint8]:
    """What a voxel is: 0 background in both, 1 right, 2 missed, 3 false, 4 a structure taken for another.

    >>> kinds(np.array([0, 1, 1, 0, 1]), np.array([0, 1, 0, 1, 2])).tolist()
    [0, 1, 2, 3, 4]
    """
    found = np.where(truth == prediction, 1, 4).astype(np.uint8)
    found[(truth > 0) & (prediction == 0)] = 2
    found[(truth == 0) & (prediction > 0)] = 3
    found[(truth == 0) & (prediction == 0)] = 0
    return found


def agreement(hu: Array | None, truth: Array, prediction: Array, grid: Grid) -> list[tuple[str, Image.Image]]:
    """An axial, a coronal and a sagittal picture, each through the layer with the most wrong voxels, with its name.

    Args:
        hu: the scan, `(I, J, K)`; None for a black ground.
        truth: class indices, `(I, J, K)`, in any orientation that `grid` tells.
        prediction: class indices.
        grid: where they lie.
    """
    seen = kinds(truth, prediction)
    volumes, turned = to_ras([seen] if hu is None else [seen, hu], grid)
    seen = volumes[0]
    spacing = turned.spacing
    box = _box(seen > 0, spacing)
    seen = seen[box]
    ground = volumes[1][box] if hu is not None else None
    wrong = seen > 1 if (seen > 1).any() else seen > 0
    palette = np.array([(0, 0, 0), *COLOURS.values()])
    found = []
    for name, axis, across, along in (("axial", 2, 0, 1), ("coronal", 1, 0, 2), ("sagittal", 0, 1, 2)):
        layer = int(np.count_nonzero(wrong, axis=tuple(other for other in range(3) if other != axis)).argmax())
        part = np.take(seen, layer, axis=axis)
        below = np.take(ground, layer, axis=axis) if ground is not None else np.full(part.shape, HU_WINDOW[0])
        faint = overlay(grey(below, HU_WINDOW), np.where(part == 1, part, 0), palette, 0.35)
        picture = Image.fromarray(overlay(faint, np.where(part > 1, part, 0), palette, 0.8))
        width, height = part.shape[0] * spacing[across], part.shape[1] * spacing[along]
        scale = _SIDE / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        found.append((name, picture.resize(size, Image.Resampling.BILINEAR)))
    return found


def _box(held: npt.NDArray[np.bool_], spacing: tuple[float, float, float]) -> tuple[slice, slice, slice]:
    """The box of what is labelled, with a margin; all of it where nothing is."""
    found = []
    for axis, size in enumerate(held.shape):
        where = np.flatnonzero(held.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = round(_MARGIN_MM / spacing[axis])
        low, high = (int(where[0]) - margin, int(where[-1]) + margin + 1) if len(where) else (0, size)
        found.append(slice(max(0, low), min(size, high)))
    return found[0], found[1], found[2]
