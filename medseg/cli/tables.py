"""Tables, numbers, durations and small curves on a terminal. rich is imported when something is printed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from medseg import units
from medseg.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_WIDTH = 120
_BARS, _PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-=+*#@"


def console() -> Console:
    """Return the console; wide enough for every table if it is not a terminal, which would wrap lines."""
    from rich.console import Console

    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=_WIDTH)


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str | Text]], *, left: Sequence[int] = (0,)
) -> Table:
    """Return a table without lines.

    Control characters in its cells are escaped, so that a name from a file cannot move the cursor.

    Args:
        title: above it.
        columns: their names.
        rows: of cells.
        left: the columns that are aligned at the left; the others are at the right.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    width = min(len(title), _WIDTH)  # a title would be wrapped at the width of its table
    grid = Table(title=title, box=box.SIMPLE, show_edge=False, pad_edge=False, title_justify="left", min_width=width)
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index in left else "right", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(printable(cell, len(cell))) if isinstance(cell, str) else cell for cell in row))
    return grid


def number(value: float | None, digits: int = 3) -> str:
    """Return a number, or a dash for None.

    >>> number(0.51234), number(None)
    ('0.512', '-')
    """
    return "-" if value is None else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """Return a duration, or a dash for None.

    >>> duration(7300), duration(None)
    ('2 h 2 min', '-')
    """
    return "-" if seconds is None else units.duration(seconds)


def sparkline(values: Sequence[float | None], width: int = 60, *, plain: bool = False) -> str:
    """Return a curve in one line of text, from its lowest value to its highest; None is a gap.

    With more values than columns, each column is the mean of its part.

    >>> sparkline([0, 1, 2, None, 7])
    '▁▂▃ █'
    """
    bars = _PLAIN_BARS if plain else _BARS
    columns = min(width, len(values))
    edges = [round(index * len(values) / columns) for index in range(columns + 1)] if columns else []
    means: list[float | None] = []
    for first, end in pairwise(edges):
        part = [value for value in values[first:end] if value is not None]
        means.append(sum(part) / len(part) if part else None)
    present = [value for value in means if value is not None]
    low, high = min(present, default=0.0), max(present, default=0.0)
    scale = (len(bars) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if value is None else bars[int((value - low) * scale + 0.5)] for value in means)
