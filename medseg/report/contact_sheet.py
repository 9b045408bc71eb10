"""Images side by side on one dark sheet, each with its title, with a legend and a caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

GAP, LINE_HEIGHT, FONT_SIZE = 8, 19, 14
HEAD = LINE_HEIGHT + 6  # above each row, for the titles
MAX_COLUMNS = 3  # of a legend
PAPER, INK, FAINT = (18, 18, 20), (226, 226, 230), (150, 150, 158)

Cell = tuple[str, npt.NDArray[np.uint8]]


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
        caption: one line below.
        legend: stands to the right of the last row, in columns; what does not fit is counted.
        legend_title: stands above it.
    """
    font = ImageFont.load_default(FONT_SIZE)
    heights = [max(image.shape[0] for _, image in row) for row in rows]
    widths = [GAP + sum(image.shape[1] + GAP for _, image in row) for row in rows]
    lines = max(1, (heights[-1] - (LINE_HEIGHT if legend_title else 0)) // LINE_HEIGHT)
    if len(legend) > MAX_COLUMNS * lines:
        shown = MAX_COLUMNS * lines - 1
        legend = [*legend[:shown], Entry(f"and {len(legend) - shown} more", PAPER)]
    columns = [legend[start : start + lines] for start in range(0, len(legend), lines)]
    column_widths = [max(_width(entry, font) for entry in column) for column in columns]
    legend_width = sum(width + 2 * GAP for width in column_widths)
    width = max(*widths, widths[-1] + legend_width)
    sheet = Image.new("RGB", (width, sum(heights) + len(rows) * HEAD + LINE_HEIGHT + 2 * GAP), PAPER)
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
    draw.text((GAP + 2, sheet.height - LINE_HEIGHT - GAP // 2), caption, INK, font=font)
    return sheet


def _width(entry: Entry, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    figure = font.getlength(entry.figure) + 2 * GAP if entry.figure else 0
    return round(19 + font.getlength(entry.text) + figure)
