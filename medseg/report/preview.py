"""Pictures of one slice for people who follow a training: CT, truth and prediction, and what is what in colours."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from medseg.labels import LabelMap
from medseg.report.render import INK, PAPER, PREDICTION, TRUTH, Array, grey, palette

Image2D = npt.NDArray[np.uint8]
COLUMNS = 3  # of a legend, at most
CELL = (480, 384)  # width and height that a slice is shown in
GAP, LINE, TEXT = 8, 19, 14
FAINT = (150, 150, 158)
_APART = 140.0  # how far two colours have to be from each other, see `_distance`


class Entry(NamedTuple):
    """A line of a legend: the structure's name, its colour, and a figure."""

    name: str
    colour: tuple[int, int, int]
    figure: str = ""


def picture_panels(image: Array, truth: Array, prediction: Array, labels: LabelMap, caption: str = "") -> Image.Image:
    """`panels` of arrays that lie as they are on the screen, `(rows, columns)`, from whatever took the picture."""
    return panels(from_screen(image), from_screen(truth), from_screen(prediction), labels, caption, "image")


def from_screen(picture: Array) -> Array:
    """Rows and columns as they are on the screen, as the slice `(I, J)` in RAS that is shown that way.

    >>> from_screen(np.array([[1, 2, 3], [4, 5, 6]])).tolist()
    [[6, 3], [5, 2], [4, 1]]
    """
    return np.asarray(picture)[::-1, ::-1].T


def panels(
    image: Array, truth: Array, prediction: Array, labels: LabelMap, caption: str = "", kind: str = "CT"
) -> Image.Image:
    """CT, truth in red, prediction in blue; where there are several structures, below, both in colours with a legend.

    A structure has one colour in truth and prediction. The legend names what is in view, the largest of the truth
    first and what is in the prediction alone last, with its Dice in this slice; as many as there is room for.

    Args:
        image: values `(I, J)`, in RAS; shown between their own 0.5 and 99.5 percentiles.
        truth: class indices `(I, J)`.
        prediction: class indices `(I, J)`.
        labels: what they mean; gives colours and legend.
        caption: one line below.
        kind: what the image is called.
    """
    base = _base(image)
    one, other = ([(0, 0, 0)] + [colour] * (len(labels) - 1) for colour in (TRUTH, PREDICTION))
    cells = [base, laid_over(base, truth, np.array(one)), laid_over(base, prediction, np.array(other))]
    names = [kind, "truth", "prediction"]
    if len(labels) == 2:
        return _sheet([cells], [names], caption)
    colours = distinct_colours(labels, truth, prediction)
    cells += [laid_over(base, truth, colours), laid_over(base, prediction, colours)]
    names += ["truth by structure", "prediction by structure"]
    legend = [
        Entry(labels.name(index), _rgb(colours[index]), dice)
        for index, dice in _dice_in_view(truth, prediction, labels)
    ]
    return _sheet([cells[:3], cells[3:]], [names[:3], names[3:]], caption, legend, "Dice in this slice")


def picture_overlay(
    image: Array, label: Array, labels: LabelMap, caption: str = "", colours: Array | None = None
) -> Image.Image:
    """`overlay_with_legend` of arrays that lie as they are on the screen, `(rows, columns)`."""
    return overlay_with_legend(from_screen(image), from_screen(label), labels, caption, colours)


def overlay_with_legend(
    image: Array, label: Array, labels: LabelMap, caption: str = "", colours: Array | None = None
) -> Image.Image:
    """One slice with a label map over it in the structures' colours, and a legend of those that are in it.

    Args:
        image: values `(I, J)`, in RAS.
        label: class indices `(I, J)`.
        labels: what they mean.
        caption: one line below.
        colours: of each class, `(classes, 3)`; by default such as can be told apart here.
    """
    colours = distinct_colours(labels, label) if colours is None else np.asarray(colours)
    sizes = _counts(label, len(labels))
    order = [int(index) for index in np.argsort(-sizes[1:], kind="stable") + 1 if sizes[index]]
    legend = [Entry(labels.name(index), _rgb(colours[index])) for index in order]
    return _sheet([[laid_over(_base(image), label, colours)]], [[""]], caption, legend)


def laid_over(base: Image2D, label: Array, colours: Array, opacity: float = 0.5) -> Image2D:
    """Colour the classes of a slice, with a clear line around each.

    Args:
        base: `(h, w, 3)`, of any size.
        label: class indices `(a, b)`, in the orientation that `grey` takes; brought to the size of `base`.
        colours: of each class, `(classes, 3)`; class 0 is left out.
        opacity: of the colour within the line.
    """
    height, width = base.shape[:2]
    flat = np.ascontiguousarray(np.asarray(label).T[::-1, ::-1])
    rows, columns = (np.arange(new) * old // new for new, old in zip((height, width), flat.shape, strict=True))
    seen = flat[rows][:, columns]
    edge = np.zeros(seen.shape, bool)
    for axis in (0, 1):
        for step in (1, -1):
            edge |= seen != np.roll(seen, step, axis)
    mixed = base.copy()
    inside, line = (seen > 0) & ~edge, (seen > 0) & edge
    mixed[inside] = base[inside] * (1 - opacity) + colours[seen[inside]] * opacity
    mixed[line] = colours[seen[line]]
    return mixed


def distinct_colours(labels: LabelMap, truth: Array, prediction: Array | None = None) -> npt.NDArray[np.int64]:
    """A colour for each class, `(classes, 3)`: its own, or another where too like that of a larger one in view.

    Truth is looked at before prediction, so that the colours of a case stay while its prediction changes.
    """
    colours = palette(labels)
    taken: list[npt.NDArray[np.int64]] = []
    parts = [truth] if prediction is None else [truth, prediction]
    order: list[int] = []
    for part in parts:
        sizes = _counts(part, len(labels))
        order += [int(i) for i in np.argsort(-sizes[1:], kind="stable") + 1 if sizes[i] and i not in order]
    for index in order:
        if taken and _distance(colours[index], np.array(taken)).min() < _APART:
            gaps = [_distance(one, np.array(taken)).min() for one in _CANDIDATES]
            colours[index] = _CANDIDATES[int(np.argmax(gaps))]
        taken.append(colours[index])
    return colours


def _distance(colour: Array, others: Array) -> npt.NDArray[np.float64]:
    """How different colours look, roughly: RGB weighted by how red they are ("redmean")."""
    red = (colour[0] + others[:, 0]) / 2
    gaps = (colour - others).astype(np.float64) ** 2
    return np.asarray(np.sqrt((2 + red / 256) * gaps[:, 0] + 4 * gaps[:, 1] + (2 + (255 - red) / 256) * gaps[:, 2]))


_CANDIDATES = np.array(
    [
        [round(255 * part) for part in colorsys.hsv_to_rgb(hue / 24, saturation, value)]
        for saturation, value in ((0.9, 1.0), (0.4, 1.0), (0.85, 0.65), (0.45, 0.7))
        for hue in range(24)
    ]
)


def _base(image: Array) -> Image2D:
    """The slice in grey, as large as a cell of the sheet takes; smooth, for there are no labels in it."""
    values = np.asarray(image, dtype=np.float32)
    low, high = np.nanpercentile(values, [0.5, 99.5]) if np.isfinite(values).any() else (0.0, 1.0)
    picture = Image.fromarray(grey(values, (float(low), float(max(high, low + 1e-6)))))
    factor = min(CELL[0] / picture.width, CELL[1] / picture.height)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC))


def _counts(part: Array, classes: int) -> npt.NDArray[np.int64]:
    return np.bincount(np.asarray(part).ravel().astype(np.int64), minlength=classes)


def _dice_in_view(truth: Array, prediction: Array, labels: LabelMap) -> list[tuple[int, str]]:
    """The classes in view, those of the truth first, the largest first, each with its Dice in the slice."""
    classes = len(labels)
    one, other = _counts(truth, classes), _counts(prediction, classes)
    same = np.asarray(truth).astype(np.int64)
    both = _counts(np.where(same == prediction, same, 0), classes)
    order = np.lexsort((-(one + other)[1:], one[1:] == 0)) + 1
    return [(int(i), f"{2 * both[i] / (one[i] + other[i]):.2f}") for i in order if one[i] + other[i]]


def _rgb(colour: Array) -> tuple[int, int, int]:
    return int(colour[0]), int(colour[1]), int(colour[2])


def _sheet(
    rows: Sequence[Sequence[Image2D]],
    names: Sequence[Sequence[str]],
    caption: str,
    legend: Sequence[Entry] = (),
    said: str = "",
) -> Image.Image:
    """Rows of cells of one size, each with its name; the legend right of the last row, the caption below."""
    height, width = rows[0][0].shape[:2]
    font, head = ImageFont.load_default(TEXT), LINE + 6
    columns = max(len(row) for row in rows)
    free = width if len(rows[-1]) < columns else 0
    lines = max(1, (height - (LINE if said else 0)) // LINE)
    room = COLUMNS * lines
    if len(legend) > room:
        legend = [*legend[: room - 1], Entry(f"and {len(legend) - room + 1} more", PAPER)]
    parts = [legend[start : start + lines] for start in range(0, len(legend), lines)]
    widths = [max(_width(entry, font) for entry in part) for part in parts]
    needed = sum(widths) + 2 * GAP * max(0, len(widths) - 1)
    across = GAP + columns * (width + GAP) + (max(0, needed + 2 * GAP - free) if legend else 0)
    sheet = Image.new("RGB", (across, len(rows) * (head + height) + LINE + 2 * GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (row, titles) in enumerate(zip(rows, names, strict=True)):
        top, left = number * (head + height), GAP
        for cell, title in zip(row, titles, strict=True):
            draw.text((left + 2, top + 6), title, INK, font=font)
            sheet.paste(Image.fromarray(cell), (left, top + head))
            left += width + GAP
    top = sheet.height - LINE - GAP - height
    left = GAP + len(rows[-1]) * (width + GAP) + GAP
    if said and legend:
        draw.text((left, top), said, FAINT, font=font)
        top += LINE
    for part, wide in zip(parts, widths, strict=True):
        for number, entry in enumerate(part):
            y = top + number * LINE
            draw.rectangle((left, y + 2, left + 12, y + 14), fill=entry.colour)
            draw.text((left + 19, y), _said(entry), INK, font=font)
            draw.text((left + wide - font.getlength(entry.figure), y), entry.figure, FAINT, font=font)
        left += wide + 2 * GAP
    draw.text((GAP + 2, sheet.height - LINE - GAP // 2), caption, INK, font=font)
    return sheet


def _said(entry: Entry) -> str:
    return entry.name.replace("_", " ")


def _width(entry: Entry, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    figure = font.getlength(entry.figure) + 2 * GAP if entry.figure else 0
    return round(19 + font.getlength(_said(entry)) + figure)
