"""Images of label maps for people: truth beside prediction, one slice with its legend, a volume in three planes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medseg.atomic import atomic_path
from medseg.grid import Grid, to_ras
from medseg.labels import LabelMap
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
GAP, LINE_HEIGHT, FONT_SIZE = 8, 19, 14
HEAD = LINE_HEIGHT + 6  # above each row, for the titles
MAX_COLUMNS, MIN_LINES = 3, 6  # of a legend
PAPER, INK, FAINT = (18, 18, 20), (226, 226, 230), (150, 150, 158)


Cell = tuple[str, ImageArray]


class Entry(NamedTuple):
    """A line of a legend: the structure's name, its color, and a figure."""

    name: str
    color: tuple[int, int, int]
    figure: str = ""

    @property
    def text(self) -> str:
        """The name for people."""
        return self.name.replace("_", " ")


def contact_sheet(
    rows: Sequence[Sequence[Cell]], caption: str = "", legend: Sequence[Entry] = (), legend_title: str = ""
) -> Image.Image:
    """Return the images on one sheet.

    Args:
        rows: of titles and images `(h, w, 3)`.
        caption: one or more lines below.
        legend: stands to the right of the last row, in columns; what does not fit is counted.
        legend_title: stands above it.
    """
    font = ImageFont.load_default(FONT_SIZE)
    heights = [max(image.shape[0] for _, image in row) for row in rows]
    widths = [GAP + sum(image.shape[1] + GAP for _, image in row) for row in rows]
    lines = max(1, (heights[-1] - (LINE_HEIGHT if legend_title else 0)) // LINE_HEIGHT)
    lines = max(lines, MIN_LINES)
    if len(legend) > MAX_COLUMNS * lines:
        shown = MAX_COLUMNS * lines - 1
        legend = [*legend[:shown], Entry(f"and {len(legend) - shown} more", PAPER)]
    lines = -(-len(legend) // max(1, -(-len(legend) // lines)))  # columns of equal length
    columns = [legend[start : start + lines] for start in range(0, len(legend), max(1, lines))]
    heights[-1] = max(heights[-1], (lines + bool(legend_title and legend)) * LINE_HEIGHT)
    column_widths = [max(_width(entry, font) for entry in column) for column in columns]
    legend_width = sum(width + 2 * GAP for width in column_widths)
    width = max(*widths, widths[-1] + legend_width)
    foot = LINE_HEIGHT * (1 + caption.count("\n"))
    sheet = Image.new("RGB", (width, sum(heights) + len(rows) * HEAD + foot + 2 * GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = GAP
        for title, image in row:
            draw.text((left + 2, top + 6), title, INK, font=font)
            sheet.paste(Image.fromarray(image), (left, top + HEAD))
            left += image.shape[1] + GAP
        top += HEAD + height
    top -= heights[-1]
    left = widths[-1] + GAP
    if legend_title and legend:
        draw.text((left, top), legend_title, FAINT, font=font)
        top += LINE_HEIGHT
    for column, column_width in zip(columns, column_widths, strict=True):
        for index, entry in enumerate(column):
            y = top + index * LINE_HEIGHT
            draw.rectangle((left, y + 2, left + 12, y + 14), fill=entry.color)
            draw.text((left + 19, y), entry.text, INK, font=font)
            draw.text((left + column_width - font.getlength(entry.figure), y), entry.figure, FAINT, font=font)
        left += column_width + 2 * GAP
    draw.text((GAP + 2, sheet.height - foot - GAP // 2), caption, INK, font=font)
    return sheet


def _width(entry: Entry, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    figure = font.getlength(entry.figure) + 2 * GAP if entry.figure else 0
    return round(19 + font.getlength(entry.text) + figure)


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


def image_preview(image: Array, label: Array, labels: LabelMap, caption: str = "") -> Image.Image:
    """Draw a 2D image with its label map in the label map's colors, and a legend of the structures in view.

    Args:
        image: values as they are on the screen, `(rows, columns)`.
        label: class indices, `(rows, columns)`.
        labels: what they mean.
        caption: one line below.
    """
    drawn = overlay(_base(from_screen(image)), from_screen(label), class_colors(labels))
    legend = [Entry(labels.name(index), labels.color(index)) for index in classes_by_size(label, len(labels))]
    return contact_sheet([[("", drawn)]], caption, legend)


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


def overview(hu: Array, label: Array, grid: Grid, labels: LabelMap, caption: str = "") -> Image.Image:
    """Draw a volume with its label map in three planes, each through the center of the labels.

    Args:
        hu: the volume in HU, `(I, J, K)`, in any orientation.
        label: class indices, `(I, J, K)`.
        grid: of both.
        labels: what the indices mean.
        caption: one line below.
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
    legend = [Entry(labels.name(index), labels.color(index)) for index in in_view]
    return contact_sheet([cells], caption, legend)


def save_overview(path: str | Path, hu: Array, label: Array, grid: Grid, labels: LabelMap, caption: str = "") -> Path:
    """Write `overview` as a PNG, complete or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    sheet = overview(hu, label, grid, labels, caption)
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
