"""What commands print: tables, numbers, durations, small curves. rich is imported when something is printed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from medseg.findings import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_WIDTH = 120
_BARS, _PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-=+*#@"


def console() -> Console:
    """Where it is no terminal that would wrap lines, wide enough for every table."""
    from rich.console import Console

    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_WIDTH)


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str | Text]], *, left: Sequence[int] = (0,)
) -> Table:
    """A table without lines; the columns in `left` begin at the left, the others end at the right.

    What others wrote into a cell moves no cursor.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    wide = min(len(title), _WIDTH)  # a title would be wrapped at the width of its table
    found = Table(title=title, box=box.SIMPLE, show_edge=False, pad_edge=False, title_justify="left", min_width=wide)
    for index, column in enumerate(columns):
        found.add_column(column, justify="left" if index in left else "right", overflow="fold")
    for row in rows:
        found.add_row(*(Text(printable(cell, len(cell))) if isinstance(cell, str) else cell for cell in row))
    return found


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where there is none.

    >>> number(0.51234), number(None)
    ('0.512', '-')
    """
    return "-" if value is None else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them; a dash where there are none.

    >>> duration(42), duration(600), duration(7300), duration(200_000), duration(None)
    ('42 s', '10 min', '2 h 2 min', '2 d 7 h', '-')
    """
    if seconds is None:
        return "-"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def sparkline(values: Sequence[float | None], width: int = 60, *, plain: bool = False) -> str:
    """A curve in one line of text, from its lowest value to its highest; a gap where nothing was measured.

    Where there are more values than columns, each column is the mean of its share.

    >>> sparkline([0, 1, 2, None, 7])
    '▁▂▃ █'
    """
    bars = _PLAIN_BARS if plain else _BARS
    columns = min(width, len(values))
    edges = [round(index * len(values) / columns) for index in range(columns + 1)] if columns else []
    means: list[float | None] = []
    for first, end in pairwise(edges):
        known = [value for value in values[first:end] if value is not None]
        means.append(sum(known) / len(known) if known else None)
    known = [value for value in means if value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    scale = (len(bars) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if value is None else bars[int((value - low) * scale + 0.5)] for value in means)
