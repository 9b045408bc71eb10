"""Images of label maps for people: truth beside prediction, one slice with its legend, a volume in three planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from medseg.atomic import atomic_path
from medseg.grid import Grid, to_ras
from medseg.labels import LabelMap
from medseg.report.contact_sheet import Entry, contact_sheet
from medseg.report.overlays import (
    HU_WINDOW,
    PREDICTION,
    TRUTH,
    Array,
    ImageArray,
    class_colors,
    class_sizes,
    classes_by_size,
    distinct_colors,
    from_screen,
    gray,
    overlay,
)

CELL = (480, 384)  # width and height that a slice is shown in
PLANE = (480, 320)  # width and height that a plane of an overview is shown in


def panels(
    image: Array, truth: Array, prediction: Array, labels: LabelMap, caption: str = "", modality: str = "CT"
) -> Image.Image:
    """Draw a slice, truth in red, prediction in blue; below, with several structures, both in color with a legend.

    A structure has one color in truth and prediction. The legend names the structures in view, the largest of the
    truth first and those of the prediction alone last, with their Dice in this slice; as many as fit.

    Args:
        image: values `(I, J)`, in RAS; shown between their own 0.5 and 99.5 percentiles.
        truth: class indices `(I, J)`.
        prediction: class indices `(I, J)`.
        labels: what they mean; gives colors and legend.
        caption: one line below.
        modality: the title of the image.
    """
    base = _base(image)
    red, blue = (np.array([(0, 0, 0)] + [color] * (len(labels) - 1)) for color in (TRUTH, PREDICTION))
    first = [
        (modality, base),
        ("truth", overlay(base, truth, red)),
        ("prediction", overlay(base, prediction, blue)),
    ]
    if len(labels) == 2:
        return contact_sheet([first], caption)
    colors = distinct_colors(labels, truth, prediction)
    second = [
        ("truth by structure", overlay(base, truth, colors)),
        ("prediction by structure", overlay(base, prediction, colors)),
    ]
    legend = [
        Entry(labels.name(index), _rgb(colors[index]), dice) for index, dice in _dice_in_view(truth, prediction, labels)
    ]
    return contact_sheet([first, second], caption, legend, "Dice in this slice")


def image_panels(image: Array, truth: Array, prediction: Array, labels: LabelMap, caption: str = "") -> Image.Image:
    """Draw `panels` of a 2D image, whose arrays lie as they are on the screen, `(rows, columns)`."""
    return panels(from_screen(image), from_screen(truth), from_screen(prediction), labels, caption, "image")


def overlay_with_legend(
    image: Array, label: Array, labels: LabelMap, caption: str = "", colors: Array | None = None
) -> Image.Image:
    """Draw one slice with a label map in the structures' colors, and a legend of those in view.

    Args:
        image: values `(I, J)`, in RAS.
        label: class indices `(I, J)`.
        labels: what they mean.
        caption: one line below.
        colors: of each class, `(classes, 3)`; by default such as can be told apart here.
    """
    colors = distinct_colors(labels, label) if colors is None else np.asarray(colors)
    legend = [Entry(labels.name(index), _rgb(colors[index])) for index in classes_by_size(label, len(labels))]
    return contact_sheet([[("", overlay(_base(image), label, colors))]], caption, legend)


def image_overlay(
    image: Array, label: Array, labels: LabelMap, caption: str = "", colors: Array | None = None
) -> Image.Image:
    """Draw `overlay_with_legend` of a 2D image, whose arrays lie as they are on the screen, `(rows, columns)`."""
    return overlay_with_legend(from_screen(image), from_screen(label), labels, caption, colors)


def slice_image(hu: Array, label: Array, grid: Grid, labels: LabelMap, side: int = 320) -> Image.Image:
    """Draw one axial slice with its label map in color, without a legend.

    Args:
        hu: a volume of one slice in HU, `(I, J, 1)`, in any orientation.
        label: class indices, `(I, J, 1)`.
        grid: of both.
        labels: what the indices mean.
        side: the longer side of the image, pixels.
    """
    (hu, label), turned = to_ras([hu, label], grid)
    base = gray(hu[:, :, 0], HU_WINDOW)
    size = (base.shape[1] * turned.spacing[0], base.shape[0] * turned.spacing[1])
    return Image.fromarray(overlay(_resized(base, size, (side, side)), label[:, :, 0], class_colors(labels)))


def save_overview(path: str | Path, hu: Array, label: Array, grid: Grid, labels: LabelMap, caption: str = "") -> Path:
    """Write an image of a volume with its label map in three planes, each through the center of the labels.

    Args:
        path: the PNG.
        hu: the volume in HU, `(I, J, K)`, in any orientation.
        label: class indices, `(I, J, K)`.
        grid: of both.
        labels: what the indices mean.
        caption: one line below.

    Raises:
        OutputError: the file cannot be written.
    """
    (hu, label), turned = to_ras([hu, label], grid)
    labeled = np.argwhere(label > 0)
    center = np.round(labeled.mean(axis=0)).astype(int) if len(labeled) else np.array(label.shape) // 2
    colors = class_colors(labels)
    cells = []
    planes = []
    for title, axis, across, along in (
        ("axial", 2, 0, 1),
        ("coronal", 1, 0, 2),
        ("sagittal (front on the left)", 0, 1, 2),
    ):
        plane = np.take(label, center[axis], axis=axis)
        base = gray(np.take(hu, center[axis], axis=axis), HU_WINDOW)
        size = (base.shape[1] * turned.spacing[across], base.shape[0] * turned.spacing[along])
        cells.append((title, overlay(_resized(base, size, PLANE), plane, colors)))
        planes.append(plane.ravel())
    in_view = classes_by_size(np.concatenate(planes), len(labels))
    legend = [Entry(labels.name(index), labels.colour(index)) for index in in_view]
    sheet = contact_sheet([cells], caption, legend)
    with atomic_path(path) as partial:
        sheet.save(partial)
    return Path(path)


def _base(image: Array) -> ImageArray:
    """Return the slice in gray, as large as a cell of the sheet; smooth, for there are no labels in it."""
    values = np.asarray(image, dtype=np.float32)
    low, high = np.nanpercentile(values, [0.5, 99.5]) if np.isfinite(values).any() else (0.0, 1.0)
    base = gray(values, (float(low), float(max(high, low + 1e-6))))
    return _resized(base, (base.shape[1], base.shape[0]), CELL)


def _resized(image: ImageArray, size: tuple[float, float], box: tuple[int, int]) -> ImageArray:
    """Resize an image to the proportions of `size`, width and height, as large as fits into `box`."""
    factor = min(box[0] / size[0], box[1] / size[1])
    pixels = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
    return np.asarray(Image.fromarray(image).resize(pixels, Image.Resampling.BICUBIC))


def _dice_in_view(truth: Array, prediction: Array, labels: LabelMap) -> list[tuple[int, str]]:
    """Return the classes in view, those of the truth first, the largest first, each with its Dice in the slice."""
    classes = len(labels)
    true = class_sizes(truth, classes)
    predicted = class_sizes(prediction, classes)
    agreeing = np.asarray(truth).astype(np.int64)
    both = class_sizes(np.where(agreeing == prediction, agreeing, 0), classes)
    order = np.lexsort((-(true + predicted)[1:], true[1:] == 0)) + 1
    return [(int(i), f"{2 * both[i] / (true[i] + predicted[i]):.2f}") for i in order if true[i] + predicted[i]]


def _rgb(color: Array) -> tuple[int, int, int]:
    return int(color[0]), int(color[1]), int(color[2])
