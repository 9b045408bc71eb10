"""Axes, histograms and box plots as inline SVG: text in the page's own size and colors, for any width, light and dark.

Lengths along x are percentages of the chart's width, those along y are pixels; nothing is ever stretched. Colors come
from the page's style sheet (classes `bar`, `mid`, `box`, `dot`, `line`, `grid`).

No plotting library, because a page is one file below 2 MB that opens offline: plotly's JavaScript alone takes 4 to
5 MB, vega's about 1 MB beside a package that inlines it, and matplotlib's SVG knows neither the pointer nor dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from markupsafe import Markup

from medseg.report.page import render_macro
from medseg.runs.metrics_log import number_of
from medseg.units import number, short

_HEIGHT = 84
_MAX_BINS = 24
_MAX_DOTS = 24
_SPREAD_WIDTH, _SPREAD_HEIGHT = 1000, 30


class Axis(Protocol):
    """An axis with ticks at round numbers."""

    ticks: list[float]

    def at(self, value: float) -> float:
        """Return the position of a value, in percent of the axis."""


class LinearAxis:
    """An axis from 0 (or below, for negative values) to a round number above the largest value.

    Args:
        values: what will be shown.
        share: whether they are shares, which end at 1.

    >>> LinearAxis([0.3, 8.0]).ticks, LinearAxis([0.5], share=True).ticks
    ([0.0, 2.0, 4.0, 6.0, 8.0], [0.0, 0.25, 0.5, 0.75, 1.0])
    """

    def __init__(self, values: Sequence[float], share: bool = False) -> None:
        low = min([0.0, *values])
        high = max([*values, 0.0])
        if share:
            high = 1.0
            step = 0.25
        else:
            step = round_step((high - low) / 4, (1, 2, 2.5, 5, 10))
        first = math.floor(low / step + 1e-9)
        last = max(math.ceil(high / step - 1e-9), 1)
        self.ticks = [round(step * index, 10) for index in range(first, last + 1)]

    def at(self, value: float) -> float:
        """Return the position of a value, in percent of the axis."""
        low, high = self.ticks[0], self.ticks[-1]
        return min(100.0, max(0.0, 100 * (value - low) / (high - low)))


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
        """Return the position of a value, in percent of the axis."""
        low, high = math.log10(self.ticks[0]), math.log10(self.ticks[-1])
        return 100 * (math.log10(max(value, self.ticks[0])) - low) / (high - low)


def axis_for(values: Sequence[float], maximum: float | None = None) -> Axis:
    """Return an axis from 0 to a round number above; logarithmic if a few values tower above all others.

    Args:
        values: what will be shown.
        maximum: the bound of the values, if there is one; 1 for shares.
    """
    ordered = sorted(values)
    median = ordered[len(ordered) // 2] if ordered else 0.0
    if maximum is None and median > 0 and ordered[0] > 0 and ordered[-1] > 20 * median:
        return LogAxis(values)
    if maximum is not None and ordered and ordered[-1] > maximum / 2:
        axis = LinearAxis([maximum])
        axis.ticks = [maximum * part / 4 for part in range(5)]
        return axis
    return LinearAxis(values if any(values) else [maximum or 1.0])


def ticks_of(span: tuple[float, float], count: int = 6, integers: bool = False) -> list[float]:
    """Return round numbers along an axis, at most so many.

    >>> ticks_of((0, 20)), ticks_of((0, 1), integers=True), ticks_of((0, 0.5), 3)
    ([0.0, 5.0, 10.0, 15.0, 20.0], [0.0, 1.0], [0.0, 0.5])
    """
    low, high = span
    step = round_step((high - low) / max(1, count - 1), (1, 2, 5, 10))
    step = max(step, 1.0) if integers else step
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def round_step(step: float, factors: Sequence[float]) -> float:
    """Return the smallest of `factors` times a power of ten that is at least `step`."""
    step = max(step, 1e-9)
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in factors if power * factor >= step * (1 - 1e-9))


def bins(values: Sequence[float]) -> tuple[list[int], list[float]]:
    """Return counts and edges of a histogram with a fitting number of bins; equal values share one.

    >>> bins([2.0, 2.0])
    ([2], [2.0, 2.0])
    """
    low, high = min(values), max(values)
    if high - low <= 1e-6 * max(abs(low), abs(high), 1e-9):
        return [len(values)], [low, high]
    count = min(_MAX_BINS, max(6, math.ceil(math.sqrt(len(values)) * 2)))
    counts, edges = np.histogram(np.asarray(values, dtype=np.float64), bins=count)
    return [int(count) for count in counts], [float(edge) for edge in edges]


def histogram(values: Sequence[float], unit: str, title: str, counted: tuple[str, str] = ("case", "cases")) -> Markup:
    """Draw how many cases have which value, with the ends of the axis and the median written below.

    Args:
        values: one of each case; empty gives a line of text.
        unit: written behind the numbers.
        title: what is measured, for screen readers.
        counted: singular and plural of what has a value.
    """
    if not values:
        return Markup('<p class="none">No values</p>')
    counts, edges = bins(values)
    low, high = edges[0], edges[-1]
    median = float(np.median(values))
    behind = f" {unit}" if unit else ""
    width = 100 / max(len(counts), 6)
    bars = []
    for index, count in enumerate(counts):
        if not count:
            continue
        left = width * index if len(counts) > 1 else 50 - width / 2
        height = max(2.0, (_HEIGHT - 8) * count / max(counts))
        span = number(edges[index]) if low == high else f"{number(edges[index])} to {number(edges[index + 1])}"
        title_of_bar = f"{span}{behind}: {_count(count, counted)}"
        bars.append({"x": left + 0.4, "width": width - 0.8, "height": height, "title": title_of_bar})
    label = f"{title}: {_count(len(values), counted)}, {number(low)} to {number(high)}{behind}, median {number(median)}"
    chart = {
        "label": label,
        "height": _HEIGHT,
        "bars": bars,
        "ends": (number(low), number(high)) if len(counts) > 1 else None,
        "text": f"{number(median)} in every {counted[0]}",
        "median": 100 * (median - low) / (high - low) if len(counts) > 1 and len(values) > 3 else None,
    }
    return render_macro("charts", "histogram", chart)


def _count(count: int, counted: tuple[str, str] = ("case", "cases")) -> str:
    return f"{count} {counted[count != 1]}"


def axis_header(axis: Axis) -> Markup:
    """Draw the numbers of an axis as a strip of its own."""
    texts = [f"{tick:g}" if isinstance(axis, LogAxis) and tick < 1 else number(tick) for tick in axis.ticks]
    return render_macro("charts", "axis_header", list(zip(map(axis.at, axis.ticks), texts, strict=True)))


def box_row(axis: Axis, values: Sequence[float], name: str, unit: str = "") -> Markup:
    """Draw one row: whiskers to the ends, a box around the central half, a line at the median, dots for few values.

    Args:
        axis: along which.
        values: one of each case; at least one.
        name: of the row, for screen readers.
        unit: written behind the numbers.
    """
    low, first, median, third, high = (float(q) for q in np.percentile(values, [0, 25, 50, 75, 100]))
    dots = values if len(values) <= _MAX_DOTS else (low, high)
    row = {
        "label": f"{name}: {_count(len(values))}, {number(low)} to {number(high)}{unit}, median {number(median)}{unit}",
        "ticks": [axis.at(tick) for tick in axis.ticks],
        "whiskers": (axis.at(low), axis.at(high)) if len(values) > 1 else None,
        "box": (axis.at(first), max(0.3, axis.at(third) - axis.at(first))) if len(values) > 2 else None,
        "median": axis.at(median),
        "dots": [axis.at(value) for value in dots],
    }
    return render_macro("charts", "box_row", row)


def spread(counts: object, edges: object, name: str) -> Markup:
    """Draw bins side by side in one line, their ends below; empty if they are no histogram.

    Args:
        counts: of each bin.
        edges: of the bins, one more than counts.
        name: what is counted, for screen readers.
    """
    heights, ends = _numbers(counts), _numbers(edges)
    if not heights or len(ends) != len(heights) + 1 or max(heights) <= 0:
        return Markup("")
    low = ends[0]
    span = (ends[-1] - low) or 1.0
    points = [(_SPREAD_WIDTH * (edge - low) / span) for edge in ends]
    tops = [_SPREAD_HEIGHT - _SPREAD_HEIGHT * height / max(heights) for height in heights]
    chart = {
        "label": f"{name}: {short(low)} to {short(ends[-1])}",
        "size": (_SPREAD_WIDTH, _SPREAD_HEIGHT),
        "bars": [bar for bar in zip(points, points[1:], tops, strict=False) if bar[2] < _SPREAD_HEIGHT],
        "ends": (short(low), short(ends[-1])),
    }
    return render_macro("charts", "spread", chart)


def _numbers(values: object) -> list[float]:
    finite = [number_of(value) for value in values] if isinstance(values, list) else []
    return [value for value in finite if value is not None]
