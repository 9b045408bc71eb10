"""Curves over time as inline SVG, with their values for the pointer; `charts` says how charts are drawn.

The curve itself lies in an image of its own that is stretched along x alone, its lines staying as thin as they are.
Long curves are thinned to what can be seen: in each of some hundred stretches the minimum and the maximum stay.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from markupsafe import Markup

from medseg.report.charts import Axis, LogAxis, axis_for, ticks_of
from medseg.report.page import render_macro
from medseg.units import number, short

HEIGHT, WIDTH = 168, 1000  # of a plot: pixels, and units along x
_GUTTER, _TOP = 52, 8
_BUCKETS = 300  # stretches that a long curve is thinned to
_MARKS = 160  # marks that can be told apart along x
_FEW_POINTS = 24  # up to so many, each has a dot

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        name: what it is.
        points: x and y in order of x; y is None where a value is missing, and the line has a gap.
        style: the color, 0 to 5; with `faint` it stays in the background.
        faint: whether it lies behind a line of means.
    """

    name: str
    points: Sequence[Point]
    style: int = 0
    faint: bool = False


@dataclass(frozen=True)
class Mark:
    """An event at x: `resume`, `best`, `warning` or `error`, and its text."""

    x: float
    kind: str
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart of several curves over one axis.

    Attributes:
        title: what it shows.
        lines: the curves.
        over: the axis, `epochs` or `hours`: charts over the same one follow the pointer together.
        unit: behind the numbers.
        maximum: the bound of the values, for shares 1.
        gaps: what a missing value means, if it means something.
        hint: how to read it.
        marks: the events.
    """

    title: str
    lines: Sequence[Line]
    over: str = "epochs"
    unit: str = ""
    maximum: float | None = None
    gaps: str = ""
    hint: str = ""
    marks: Sequence[Mark] = field(default_factory=tuple)


def thinned(points: Sequence[Point], buckets: int = _BUCKETS) -> list[Point]:
    """Return at most four points a stretch of x: first, minimum, maximum and last; a stretch without values is a gap.

    >>> thinned([(0, 1.0), (1, 5.0), (2, 0.0), (3, 2.0), (4, None), (5, 1.0)], buckets=1)
    [(0, 1.0), (1, 5.0), (2, 0.0), (5, 1.0)]
    """
    if len(points) <= 4 * buckets:
        return list(points)
    low, high = points[0][0], max(x for x, _ in points)
    width = (high - low) / buckets or 1.0
    result: list[Point] = []
    for _, group in groupby(points, lambda point: min(buckets - 1, int((point[0] - low) / width))):
        stretch = list(group)
        values = [(y, index) for index, (_, y) in enumerate(stretch) if y is not None]
        if values:
            indices = {values[0][1], values[-1][1], min(values)[1], max(values)[1]}
            result += [stretch[index] for index in sorted(indices)]
        else:
            result.append((stretch[0][0], None))
    return result


def draw(chart: Chart, span: tuple[float, float]) -> Markup:
    """Draw a chart; empty if no curve has a value.

    Args:
        chart: the curves.
        span: first and last x of the axis.
    """
    lines = [line for line in chart.lines if any(y is not None for _, y in line.points)]
    if not lines:
        return Markup("")
    points = [thinned(line.points) for line in lines]
    axis = axis_for([y for curve in points for _, y in curve if y is not None], chart.maximum)
    title = f"{chart.title}, {chart.unit}" if chart.unit else chart.title
    missing = sorted({x for line in lines for x, y in line.points if y is None}) if chart.gaps else []
    curves = [
        {
            "name": line.name,
            "style": line.style,
            "faint": line.faint,
            "last": short(_values(line)[-1]),
            "path": _path(curve, lambda x, y: (_x(x, span) * WIDTH / 100, _y(axis, y))),
        }
        for line, curve in zip(lines, points, strict=True)
    ]
    layout: dict[str, Any] = {
        "title": title,
        "label": f"{title}: {'; '.join(_summary(line) for line in lines)}",
        "over": chart.over,
        "span": f"{span[0]:.6g} {span[1]:.6g}",
        "data": _data(points),
        "mark_data": json.dumps([[_rounded(mark.x), mark.text] for mark in chart.marks[:500]]),
        "logarithmic": isinstance(axis, LogAxis),
        "hint": chart.hint,
        "gaps": f"{number(len(missing))} {chart.gaps}" if missing else "",
        "lines": curves,
        "width": WIDTH,
        "height": HEIGHT,
        "gutter": _GUTTER,
        "y_ticks": [{"y": _y(axis, tick), "text": short(tick)} for tick in axis.ticks],
        "x_ticks": _x_ticks(span, chart.over),
        "marks": [{"x": _x(mark.x, span), "kind": mark.kind} for mark in _distinct_marks(chart.marks, span)],
        "dots": _dots(chart, lines, points, axis, span),
        "missing": list({round(_x(x, span) * 2): _x(x, span) for x in missing}.values()),
    }
    return render_macro("charts", "curves", layout)


def spark(values: Sequence[float | None], name: str) -> Markup:
    """Draw a curve from 0 to 1 as small as a word; empty without values.

    Args:
        values: evenly apart; None is a gap.
        name: what it shows, for screen readers.
    """
    points = thinned([(float(index), value) for index, value in enumerate(values)], 16)
    if not any(y is not None for _, y in points):
        return Markup("")
    height = 22
    last = max(len(values) - 1, 1)
    path = _path(points, lambda x, y: (WIDTH * x / last, height - 2 - (height - 4) * min(1.0, max(0.0, y))))
    return render_macro("charts", "spark", {"label": name, "width": WIDTH, "height": height, "path": path})


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - (HEIGHT - _TOP) * axis.at(value) / 100


def _x(x: float, span: tuple[float, float]) -> float:
    return min(100.0, max(0.0, 100 * (x - span[0]) / ((span[1] - span[0]) or 1.0)))


def _path(points: Sequence[Point], location: Callable[[float, float], tuple[float, float]]) -> str:
    """Return an SVG path: the pen is lifted at a gap, and a value between two gaps is a dot."""
    path = []
    drawing = False
    for index, (x, y) in enumerate(points):
        if y is None:
            drawing = False
            continue
        right, below = location(x, y)
        single = not drawing and (index + 1 == len(points) or points[index + 1][1] is None)
        path.append(f"{'L' if drawing else 'M'}{right:.1f} {below:.1f}{'h.01' if single else ''}")
        drawing = True
    return "".join(path)


def _dots(
    chart: Chart, lines: Sequence[Line], points: Sequence[Sequence[Point]], axis: Axis, span: tuple[float, float]
) -> list[dict[str, Any]]:
    """Return a dot for each value of a short curve, and for the best epoch on the first curve."""
    dots = []
    for line, curve in zip(lines, points, strict=True):
        values = [(x, y) for x, y in curve if y is not None]
        if not line.faint and len(values) <= _FEW_POINTS:
            dots += [(x, y, f"c{line.style}") for x, y in values]
    by_x = {x: y for x, y in lines[0].points if y is not None}
    dots += [(mark.x, by_x[mark.x], "top") for mark in chart.marks if mark.kind == "best" and mark.x in by_x]
    return [{"x": _x(x, span), "y": _y(axis, y), "kind": kind} for x, y, kind in dots]


def _distinct_marks(marks: Sequence[Mark], span: tuple[float, float]) -> list[Mark]:
    """Return no more marks than can be told apart; of those at one place the worst."""
    order = ("best", "error", "warning", "resume")
    distinct: dict[int, Mark] = {}
    for mark in sorted(marks, key=lambda mark: order.index(mark.kind)):
        distinct.setdefault(round(_x(mark.x, span) * _MARKS / 100), mark)
    return list(distinct.values())


def _x_ticks(span: tuple[float, float], over: str) -> list[dict[str, Any]]:
    ticks = []
    for tick in ticks_of(span, integers=over == "epochs"):
        x = _x(tick, span)
        anchor = "start" if x < 2 else "end" if x > 97 else "middle"
        ticks.append({"x": x, "anchor": anchor, "text": number(tick)})
    return ticks


def _values(line: Line) -> list[float]:
    return [y for _, y in line.points if y is not None]


def _summary(line: Line) -> str:
    values = _values(line)
    return f"{line.name} {short(min(values))} to {short(max(values))}, last {short(values[-1])}"


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _data(points: Sequence[Sequence[Point]]) -> str:
    """Return the values for the pointer, as JSON."""
    content = [[[_rounded(x) for x, _ in curve], [_rounded(y) for _, y in curve]] for curve in points]
    return json.dumps(content, separators=(",", ":"))
