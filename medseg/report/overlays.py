"""Label maps in color over gray images, in the radiologist's view: the patient's right is on the left.

Slices have the patient's right and front at the high end of their axes (RAS): `(I, J)` for an axial one.

Not `skimage.color.label2rgb` with `segmentation.find_boundaries`: with the 117 structures of a CT they took 184 ms an
image where this takes 10 to 50, and their import 0.8 s more, which every command that draws would pay.
"""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.labels import LabelMap

Array = npt.NDArray[Any]
ImageArray = npt.NDArray[np.uint8]
TRUTH, PREDICTION = (235, 64, 52), (66, 133, 244)
# Told apart without telling red from green, on gray and on black.
ERROR_COLORS = {"right": (86, 180, 160), "missed": (230, 85, 60), "false": (80, 140, 240), "confused": (240, 200, 60)}
HU_WINDOW = (-200.0, 300.0)
_MIN_DISTANCE = 140.0  # between two colors in view, see `_color_distance`


def from_screen(image: Array) -> Array:
    """Return rows and columns as they are on the screen as the slice `(I, J)` in RAS that is shown that way.

    >>> from_screen(np.array([[1, 2, 3], [4, 5, 6]])).tolist()
    [[6, 3], [5, 2], [4, 1]]
    """
    return np.asarray(image)[::-1, ::-1].T


def to_screen(plane: Array) -> Array:
    """Return a slice `(a, b)` that grows to the right and up in the patient as rows and columns of an image."""
    return np.ascontiguousarray(np.asarray(plane).T[::-1, ::-1])


def gray(plane: Array, window: tuple[float, float]) -> ImageArray:
    """Return values between the ends of `window` as gray `(h, w, 3)`."""
    low, high = window
    scaled = np.clip((np.nan_to_num(to_screen(plane).astype(np.float32)) - low) / (high - low), 0, 1)
    return np.repeat((scaled * 255).astype(np.uint8)[..., None], 3, axis=2)


def overlay(
    base: ImageArray, label: Array, colors: Array, opacity: float | Array = 0.5, outlines: bool = True
) -> ImageArray:
    """Color the classes of a slice, with an opaque line along the inside of each.

    Args:
        base: `(h, w, 3)`, of any size.
        label: class indices `(a, b)`, in the orientation that `gray` takes; resized to `base`, each pixel from the
            nearest.
        colors: of each class, `(classes, 3)`; class 0 is left out.
        opacity: of the color within the line, 0 to 1; of all classes or of each.
        outlines: whether there is a line.
    """
    height, width = base.shape[:2]
    screen = to_screen(label)
    rows, columns = (np.arange(new) * old // new for new, old in zip((height, width), screen.shape, strict=True))
    classes = screen[rows][:, columns]
    labeled = classes > 0
    colors = np.asarray(colors)
    opacities = np.broadcast_to(np.asarray(opacity, dtype=np.float32), len(colors))[classes]
    if outlines:
        opacities = np.where(_boundaries(classes), np.float32(1), opacities)
    ground = base[labeled].astype(np.float32)
    mixed = base.copy()
    mixed[labeled] = ground + (colors[classes[labeled]] - ground) * opacities[labeled][:, None]
    return mixed


def _boundaries(classes: Array) -> npt.NDArray[np.bool_]:
    """Return the pixels with a neighbor of another class; the border of the image is no boundary."""
    boundaries = np.zeros(classes.shape, bool)
    vertical = classes[1:] != classes[:-1]
    boundaries[1:] |= vertical
    boundaries[:-1] |= vertical
    horizontal = classes[:, 1:] != classes[:, :-1]
    boundaries[:, 1:] |= horizontal
    boundaries[:, :-1] |= horizontal
    return boundaries


def class_colors(labels: LabelMap) -> npt.NDArray[np.int64]:
    """Return the color of each class, `(classes, 3)`."""
    return np.array([labels.color(index) for index in range(len(labels))])


def distinct_colors(labels: LabelMap, truth: Array, prediction: Array | None = None) -> npt.NDArray[np.int64]:
    """Return a color for each class, `(classes, 3)`: its own, or another if too like that of a larger one in view.

    Truth comes before prediction, so that the colors of a case stay while its prediction changes.
    """
    colors = class_colors(labels)
    used: list[npt.NDArray[np.int64]] = []
    order: list[int] = []
    for part in [truth] if prediction is None else [truth, prediction]:
        order += [index for index in classes_by_size(part, len(labels)) if index not in order]
    for index in order:
        if used and _color_distance(colors[index], np.array(used)).min() < _MIN_DISTANCE:
            distances = [_color_distance(color, np.array(used)).min() for color in _CANDIDATES]
            colors[index] = _CANDIDATES[int(np.argmax(distances))]
        used.append(colors[index])
    return colors


def class_sizes(label: Array, classes: int) -> npt.NDArray[np.int64]:
    """Return the number of voxels of each class."""
    return np.bincount(np.asarray(label).ravel().astype(np.int64), minlength=classes)


def classes_by_size(label: Array, classes: int) -> list[int]:
    """Return the classes in view without the background, the largest first."""
    sizes = class_sizes(label, classes)
    return [int(index) for index in np.argsort(-sizes[1:], kind="stable") + 1 if sizes[index]]


def _color_distance(color: Array, others: Array) -> npt.NDArray[np.float64]:
    """Return how different colors look, roughly: RGB weighted by how red they are ("redmean")."""
    red = (color[0] + others[:, 0]) / 2
    squares = (color - others).astype(np.float64) ** 2
    weighted = (2 + red / 256) * squares[:, 0] + 4 * squares[:, 1] + (2 + (255 - red) / 256) * squares[:, 2]
    return np.asarray(np.sqrt(weighted))


_CANDIDATES = np.array(
    [
        [round(255 * part) for part in colorsys.hsv_to_rgb(hue / 24, saturation, value)]
        for saturation, value in ((0.9, 1.0), (0.4, 1.0), (0.85, 0.65), (0.45, 0.7))
        for hue in range(24)
    ]
)
