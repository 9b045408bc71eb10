"""Slices and label maps as pictures, in the radiologist's view: the patient's right is on the left.

All slices come with the patient's right and front at the high end of their axes (RAS): `(I, J)` axial.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from medseg.atomic import atomic_path
from medseg.grid import Grid, to_ras
from medseg.labels import LabelMap

Array = npt.NDArray[Any]
TRUTH, PREDICTION = (235, 64, 52), (66, 133, 244)
# Told apart without telling red from green, on gray and on black.
ERROR_COLORS = {"right": (86, 180, 160), "missed": (230, 85, 60), "false": (80, 140, 240), "confused": (240, 200, 60)}
PAPER, INK = (18, 18, 20), (226, 226, 230)
HU_WINDOW = (-200.0, 300.0)
TILE = (480, 320)  # width and height that a picture fits into


def _view(part: Array) -> Array:
    """An array `(a, b)` that grows to the right and up in the patient, as rows and columns of a picture."""
    return np.ascontiguousarray(part.T[::-1, ::-1])


def grey(part: Array, window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Values between the ends of `window` as grey `(h, w, 3)`."""
    low, high = window
    scaled = np.clip((np.nan_to_num(_view(part).astype(np.float32)) - low) / (high - low), 0, 1)
    return np.repeat((scaled * 255).astype(np.uint8)[..., None], 3, axis=2)


def overlay(base: npt.NDArray[np.uint8], label: Array, colours: Array, opacity: float = 0.55) -> npt.NDArray[np.uint8]:
    """Lay the classes of `label` over a picture.

    Args:
        base: `(h, w, 3)`, as `grey` gives it.
        label: class indices `(a, b)`, in the orientation that `grey` took.
        colours: colour of each class, `(classes, 3)`; class 0 is left out.
        opacity: of the colour, 0 to 1.
    """
    seen = _view(label)
    mixed = base * (1 - opacity) + colours[seen] * opacity
    return np.where((seen > 0)[..., None], mixed, base).astype(np.uint8)


def palette(labels: LabelMap) -> npt.NDArray[np.int64]:
    """The colour of each class, `(classes, 3)`."""
    return np.array([labels.colour(index) for index in range(len(labels))])


def _legend_of(labels: LabelMap, *parts: Array) -> list[tuple[str, tuple[int, int, int]]]:
    """Names and colours of the largest structures in view."""
    counts = np.bincount(
        np.concatenate([np.asarray(part).ravel() for part in parts]).astype(np.int64), minlength=len(labels)
    )
    order = [int(index) for index in np.argsort(-counts[1:], kind="stable") + 1 if counts[index]]
    return [(labels.name(index), labels.colour(index)) for index in order[:24]]


def _sheet(
    tiles: Sequence[npt.NDArray[np.uint8]],
    names: Sequence[str],
    legend: Sequence[tuple[str, tuple[int, int, int]]],
    caption: str,
) -> Image.Image:
    """Tiles side by side, each with its name, a legend at the right, a caption below."""
    pictures = [_fitted(tile) for tile in tiles]
    height = max(picture.height for picture in pictures)
    font = ImageFont.load_default(13)
    legend_width = 190 if legend else 0
    width = sum(picture.width + 6 for picture in pictures) + legend_width + 6
    rows = max(height, 17 * len(legend))
    sheet = Image.new("RGB", (width, rows + 50), PAPER)
    draw = ImageDraw.Draw(sheet)
    x = 6
    for picture, name in zip(pictures, names, strict=True):
        draw.text((x + 2, 5), name, INK, font=font)
        sheet.paste(picture, (x, 25))
        x += picture.width + 6
    for row, (name, colour) in enumerate(legend):
        y = 25 + 17 * row
        draw.rectangle((x + 2, y + 2, x + 13, y + 13), fill=colour)
        draw.text((x + 19, y), name, INK, font=font)
    draw.text((8, rows + 29), caption, INK, font=font)
    return sheet


def _fitted(tile: npt.NDArray[np.uint8]) -> Image.Image:
    """The tile, as large as fits into the box that each gets; a flat volume gives a flat picture."""
    picture = Image.fromarray(tile)
    factor = min(TILE[0] / picture.width, TILE[1] / picture.height)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.BILINEAR)


def save_overview(path: str | Path, hu: Array, label: Array, grid: Grid, labels: LabelMap, caption: str = "") -> Path:
    """Write a picture of a volume with its label map in three planes, each through the middle of what was found.

    Args:
        path: the PNG.
        hu: the volume in HU, `(I, J, K)`, in any orientation that `grid` tells.
        label: class indices, `(I, J, K)`.
        grid: where both lie.
        labels: what the indices mean.
        caption: one line below.

    Raises:
        OutputError: the place cannot be written.
    """
    (hu, label), turned = to_ras([hu, label], grid)
    spacing = turned.spacing
    found = np.argwhere(label > 0)
    middle = np.round(found.mean(axis=0)).astype(int) if len(found) else np.array(label.shape) // 2
    colours = palette(labels)
    tiles = []
    for axis, (across, along) in ((2, (0, 1)), (1, (0, 2)), (0, (1, 2))):
        part, seen = np.take(hu, middle[axis], axis=axis), np.take(label, middle[axis], axis=axis)
        tile = overlay(grey(part, HU_WINDOW), seen, colours)
        size = (max(1, round(tile.shape[1] * spacing[across] * 2)), max(1, round(tile.shape[0] * spacing[along] * 2)))
        tiles.append(np.asarray(Image.fromarray(tile).resize(size, Image.Resampling.BILINEAR)))
    names = ["axial", "coronal", "sagittal (front on the left)"]
    planes = [np.take(label, middle[axis], axis=axis) for axis in range(3)]
    sheet = _sheet(tiles, names, _legend_of(labels, *planes), caption)
    with atomic_path(path) as partial:
        sheet.save(partial)
    return Path(path)
