"""Small charts as inline SVG: text in the page's own size and colours, so that they fit any width, light and dark.

Lengths along x are percentages of the chart's width, those along y are pixels; nothing is ever stretched.
Colours come from the page's style sheet (classes `bar`, `mid`, `box`, `dot`, `line`, `grid`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Protocol

import numpy as np

_HEIGHT, _ROW, _MOST_BINS, _MOST_DOTS = 84, 22, 24, 24


def number(value: float) -> str:
    """A number as people write it: three significant digits, thousands apart by a thin space, a true minus.

    >>> number(0.97656), number(250.0), number(0)
    ('0.977', '250', '0')
    """
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}".replace(",", "\u2009").replace("-", "\u2212")
    return text.rstrip("0").rstrip(".") if "." in text else text


def bins(values: Sequence[float]) -> tuple[list[int], list[float]]:
    """Counts and edges of a histogram with as many bins as the values are worth; equal values share one.

    >>> bins([2.0, 2.0])
    ([2], [2.0, 2.0])
    """
    low, high = min(values), max(values)
    if high - low <= 1e-6 * max(abs(low), abs(high), 1e-9):
        return [len(values)], [low, high]
    count = min(_MOST_BINS, max(6, math.ceil(math.sqrt(len(values)) * 2)))
    counts, edges = np.histogram(np.asarray(values, dtype=np.float64), bins=count)
    return [int(count) for count in counts], [float(edge) for edge in edges]


def histogram(values: Sequence[float], unit: str, what: str, counted: tuple[str, str] = ("case", "cases")) -> str:
    """Bars of how many cases have which value, with the ends of the axis and the median written below.

    Args:
        values: one of each case; empty gives a line of text.
        unit: written behind the numbers.
        what: what is measured, for those who have it read to them.
        counted: one and many of what has a value.
    """
    if not values:
        return '<p class="none">No values</p>'
    counts, edges = bins(values)
    low, high = edges[0], edges[-1]
    middle = float(np.median(values))
    most, behind = max(counts), f" {escape(unit)}" if unit else ""
    parts = []
    for index, count in enumerate(counts):
        if not count:
            continue
        width = 100 / max(len(counts), 6)
        left = width * index if len(counts) > 1 else 50 - width / 2
        tall = max(2.0, (_HEIGHT - 8) * count / most)
        span = number(edges[index]) if low == high else f"{number(edges[index])} to {number(edges[index + 1])}"
        parts.append(
            f'<rect class="bar" x="{left + 0.4:.2f}%" y="{_HEIGHT - tall:.1f}" width="{width - 0.8:.2f}%" '
            f'height="{tall:.1f}" rx="1.5"><title>{span}{behind}: '
            f"{_cases(count, counted)}</title></rect>"
        )
    at = 50.0 if len(counts) == 1 else 100 * (middle - low) / (high - low)
    parts.append(f'<line class="grid" x1="0" x2="100%" y1="{_HEIGHT + 0.5}" y2="{_HEIGHT + 0.5}"/>')
    if len(counts) > 1 and len(values) > 3:
        parts.append(f'<line class="mid" x1="{at:.2f}%" x2="{at:.2f}%" y1="2" y2="{_HEIGHT}"/>')
    if len(counts) > 1:
        parts.append(f'<text x="0" y="{_HEIGHT + 16}">{number(low)}</text>')
        parts.append(f'<text x="100%" y="{_HEIGHT + 16}" text-anchor="end">{number(high)}</text>')
    else:
        parts.append(
            f'<text x="50%" y="{_HEIGHT + 16}" text-anchor="middle">{number(middle)} in every {counted[0]}</text>'
        )
    label = f"{what}: {_cases(len(values), counted)}, {number(low)} to {number(high)}"
    label += f"{' ' * bool(unit)}{unit}, median {number(middle)}"
    return f'<svg role="img" aria-label="{escape(label)}" width="100%" height="{_HEIGHT + 22}">{"".join(parts)}</svg>'


def _cases(count: int, counted: tuple[str, str] = ("case", "cases")) -> str:
    return f"{count} {counted[count != 1]}"


class LogAxis:
    """A logarithmic axis from the power of ten below the smallest value to the one above the largest.

    >>> axis = LogAxis([3.0, 250.0])
    >>> axis.ticks, round(axis.at(10.0), 1)
    ([1.0, 10.0, 100.0, 1000.0], 33.3)
    """

    def __init__(self, values: Sequence[float]) -> None:
        positive = [value for value in values if value > 0] or [1.0]
        first = math.floor(math.log10(min(positive)))
        last = max(first + 1, math.ceil(math.log10(max(positive))))
        self.ticks = [10.0**power for power in range(first, last + 1)]

    def at(self, value: float) -> float:
        """Where a value lies, in percent of the axis."""
        low, high = math.log10(self.ticks[0]), math.log10(self.ticks[-1])
        return 100 * (math.log10(max(value, self.ticks[0])) - low) / (high - low)

    def header(self) -> str:
        """The numbers of the axis as a strip of their own."""
        texts = []
        for index, tick in enumerate(self.ticks):
            anchor = "start" if index == 0 else "end" if index == len(self.ticks) - 1 else "middle"
            text = f"{tick:g}" if tick < 1 else number(tick)
            kind = ' class="inner"' if anchor == "middle" else ""
            texts.append(f'<text{kind} x="{self.at(tick):.2f}%" y="12" text-anchor="{anchor}">{text}</text>')
        return f'<svg aria-hidden="true" width="100%" height="16">{"".join(texts)}</svg>'

    def strip(self, values: Sequence[float], what: str) -> str:
        """One row: a dot for each value where they are few, the box of the middle half, a line for the median."""
        return box_row(self, values, what, " ml")


class Axis(Protocol):
    """What a row is drawn along."""

    ticks: list[float]

    def at(self, value: float) -> float:
        """Where a value lies, in percent of the axis."""


def box_row(axis: Axis, values: Sequence[float], what: str, unit: str = "") -> str:
    """One row: whiskers to the ends, a box round the middle half, a line at the median, dots for few values.

    Args:
        axis: along which.
        values: one of each case; at least one.
        what: the name of the row, for those who have it read to them.
        unit: written behind the numbers.
    """
    low, first, middle, third, high = (float(q) for q in np.percentile(values, [0, 25, 50, 75, 100]))
    parts = [
        f'<line class="grid" x1="{axis.at(tick):.2f}%" x2="{axis.at(tick):.2f}%" y1="0" y2="{_ROW}"/>'
        for tick in axis.ticks
    ]
    if len(values) > 1:
        parts.append(f'<line class="line" x1="{axis.at(low):.2f}%" x2="{axis.at(high):.2f}%" y1="11" y2="11"/>')
    if len(values) > 2:
        start, end = axis.at(first), axis.at(third)
        parts.append(
            f'<rect class="box" x="{start:.2f}%" y="6" width="{max(0.3, end - start):.2f}%" height="10" rx="3"/>'
        )
        parts.append(f'<line class="mid" x1="{axis.at(middle):.2f}%" x2="{axis.at(middle):.2f}%" y1="4" y2="18"/>')
    dots = values if len(values) <= _MOST_DOTS else (low, high)
    parts += [f'<circle class="dot" cx="{axis.at(value):.2f}%" cy="11" r="3"/>' for value in dots]
    label = f"{what}: {_cases(len(values))}, {number(low)} to {number(high)}{unit}, median {number(middle)}{unit}"
    return (
        f'<svg role="img" aria-label="{escape(label)}" width="100%" height="{_ROW}">'
        f"<title>{escape(label)}</title>{''.join(parts)}</svg>"
    )
