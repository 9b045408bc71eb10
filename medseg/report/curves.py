"""Series over time as inline SVG, with their values for the pointer; see `charts` for how charts are drawn.

The curve itself lies in a picture of its own that is stretched along x alone, its lines staying as thin as they are.
Long series are thinned to what the eye could see anyway: in each of some hundred stretches the least and the most stay.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

from medseg.report.boxes import LinearAxis
from medseg.report.charts import Axis, LogAxis, number

HEIGHT, WIDTH = 168, 1000  # of a plot: pixels, and parts into which its width is divided
_GUTTER, _TOP, _BUCKETS, _PLACES, _FEW = 52, 8, 300, 160, 24
_SPREAD = 20.0  # how many times the median the largest value is before the axis turns logarithmic

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Line:
    """One series.

    Attributes:
        name: what it is.
        points: x and y in order of x; y is None where there is no value, and the line has a gap.
        style: which colour, 0 to 5; with `faint` it stays in the background.
        faint: whether it is what lies behind a line of means.
    """

    name: str
    points: Sequence[Point]
    style: int = 0
    faint: bool = False


@dataclass(frozen=True)
class Mark:
    """Something that happened at x: `resume`, `best`, `warning` or `error`, and what is said of it."""

    x: float
    kind: str
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart of several series over one axis.

    Attributes:
        title: what it shows.
        lines: of what.
        over: which axis, `epochs` or `hours`: charts over the same one follow the pointer together.
        unit: behind the numbers.
        most: above which the axis never goes, for shares 1.
        gaps: what a missing value means, where it means something.
        hint: what one should see in it.
        marks: what happened.
    """

    title: str
    lines: Sequence[Line]
    over: str = "epochs"
    unit: str = ""
    most: float | None = None
    gaps: str = ""
    hint: str = ""
    marks: Sequence[Mark] = field(default_factory=tuple)


def thinned(points: Sequence[Point], buckets: int = _BUCKETS) -> list[Point]:
    """At most four points for each stretch of x: first, least, most and last; a gap stays where a stretch has no value.

    >>> thinned([(0, 1.0), (1, 5.0), (2, 0.0), (3, 2.0), (4, None), (5, 1.0)], buckets=1)
    [(0, 1.0), (1, 5.0), (2, 0.0), (5, 1.0)]
    """
    if len(points) <= 4 * buckets:
        return list(points)
    low, high = points[0][0], max(x for x, _ in points)
    width = (high - low) / buckets or 1.0
    found: list[Point] = []
    start = 0
    while start < len(points):
        bucket = min(buckets - 1, int((points[start][0] - low) / width))
        end = start + 1
        while end < len(points) and min(buckets - 1, int((points[end][0] - low) / width)) == bucket:
            end += 1
        part = points[start:end]
        known = [(y, index) for index, (_, y) in enumerate(part) if y is not None]
        if known:
            kept = {known[0][1], known[-1][1], min(known)[1], max(known)[1]}
            found += [part[index] for index in sorted(kept)]
        else:
            found.append((part[0][0], None))
        start = end
    return found


def ticks_of(span: tuple[float, float], count: int = 6, whole: bool = False) -> list[float]:
    """Round numbers along an axis, at most so many.

    >>> ticks_of((0, 20)), ticks_of((0, 1), whole=True), ticks_of((0, 0.5), 3)
    ([0.0, 5.0, 10.0, 15.0, 20.0], [0.0, 1.0], [0.0, 0.5])
    """
    low, high = span
    rough = max(high - low, 1e-9) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def axis_of(values: Sequence[float], most: float | None = None) -> Axis:
    """From 0 to a round number above; logarithmic where few values tower above all others.

    Args:
        values: what will be shown.
        most: what none can be above, where there is such a bound.
    """
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2] if ordered else 0.0
    if most is None and middle > 0 and ordered[0] > 0 and ordered[-1] > _SPREAD * middle:
        return LogAxis(values)
    if most is not None and ordered and ordered[-1] > most / 2:
        axis = LinearAxis([most])
        axis.ticks = [most * part / 4 for part in range(5)]
        return axis
    return LinearAxis(values if any(values) else [most or 1.0])


def draw(chart: Chart, span: tuple[float, float]) -> str:
    """The HTML of a chart; empty where no series has a value.

    Args:
        chart: what is drawn.
        span: first and last x of the axis.
    """
    lines = [line for line in chart.lines if any(y is not None for _, y in line.points)]
    if not lines:
        return ""
    few = [thinned(line.points) for line in lines]
    axis = axis_of([y for points in few for _, y in points if y is not None], chart.most)
    parts = [
        f'<line class="grid" x1="0" x2="100%" y1="{_y(axis, tick):.1f}" y2="{_y(axis, tick):.1f}"/>'
        for tick in axis.ticks
    ]
    parts += [_mark(mark, span) for mark in _fewer(chart.marks, span)]
    paths = "".join(_path(line, points, axis, span) for line, points in zip(lines, few, strict=True))
    parts.append(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" width="100%" height="{HEIGHT}">{paths}</svg>'
    )
    for line, points in zip(lines, few, strict=True):
        known = [point for point in points if point[1] is not None]
        if not line.faint and len(known) <= _FEW:
            parts += [_dot(x, y, axis, span, f"c{line.style}") for x, y in known if y is not None]
    parts += [_dot(mark.x, y, axis, span, "top") for mark, y in _tops(chart, lines)]
    missing = sorted({x for line in lines for x, y in line.points if y is None}) if chart.gaps else []
    parts += [
        f'<line class="lost" x1="{_x(x, span):.2f}%" x2="{_x(x, span):.2f}%" y1="{HEIGHT - 9}" y2="{HEIGHT}"/>'
        for x in _apart(missing, span)
    ]
    gaps = f'<p class="gaps">{number(len(missing))} {escape(chart.gaps)}</p>' if missing else ""
    log = "<small>logarithmic</small>" if isinstance(axis, LogAxis) else ""
    said = f"{chart.title}{f', {chart.unit}' if chart.unit else ''}"
    label = escape(f"{said}: {'; '.join(_summary(line) for line in lines)}", quote=True)
    hint = f'<p class="hint">{escape(chart.hint)}</p>' if chart.hint else ""
    return (
        f'<figure class="chart" data-over="{chart.over}" data-span="{span[0]:.6g} {span[1]:.6g}" '
        f'data-lines="{escape(_data(lines, few), quote=True)}" '
        f'data-marks="{escape(json.dumps([[_round(m.x), m.text] for m in chart.marks[:500]]), quote=True)}">'
        f"<h3>{escape(said)}{log}</h3>{_legend(lines)}{hint}"
        f'<div class="axes">{_labels(axis)}<svg class="plot" role="img" aria-label="{label}" width="100%" '
        f'height="{HEIGHT + 22}">{"".join(parts)}{_below(span, chart.over)}'
        f'<line class="cursor" x1="0" x2="0" y1="0" y2="{HEIGHT}" visibility="hidden"/></svg></div>{gaps}</figure>'
    )


def spark(values: Sequence[float | None], what: str) -> str:
    """A curve from 0 to 1 as small as a word.

    Args:
        values: evenly apart; None is a gap.
        what: what it shows, for those who have it read to them.
    """
    points = thinned([(float(index), value) for index, value in enumerate(values)], 16)
    if not any(y is not None for _, y in points):
        return ""
    height, last = 22, max(len(values) - 1, 1)
    path = _way(points, lambda x, y: (WIDTH * x / last, height - 2 - (height - 4) * min(1.0, max(0.0, y))))
    return (
        f'<svg class="spark" role="img" aria-label="{escape(what, quote=True)}" viewBox="0 0 {WIDTH} {height}" '
        f'preserveAspectRatio="none" width="100%" height="{height}"><path d="M0 {height - 2}h{WIDTH}" class="zero"/>'
        f'<path class="c0" d="{path}"/></svg>'
    )


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - (HEIGHT - _TOP) * axis.at(value) / 100


def _x(x: float, span: tuple[float, float]) -> float:
    return min(100.0, max(0.0, 100 * (x - span[0]) / ((span[1] - span[0]) or 1.0)))


def _way(points: Sequence[Point], location: Callable[[float, float], tuple[float, float]]) -> str:
    """The way of a pen: lifted at a gap, and set down for a value that stands alone."""
    way, down = [], False
    for index, (x, y) in enumerate(points):
        if y is None:
            down = False
            continue
        right, below = location(x, y)
        alone = not down and (index + 1 == len(points) or points[index + 1][1] is None)
        way.append(f"{'L' if down else 'M'}{right:.1f} {below:.1f}{'h.01' if alone else ''}")
        down = True
    return "".join(way)


def _path(line: Line, points: Sequence[Point], axis: Axis, span: tuple[float, float]) -> str:
    way = _way(points, lambda x, y: (_x(x, span) * WIDTH / 100, _y(axis, y)))
    return f'<path class="c{line.style}{" faint" if line.faint else ""}" d="{way}"/>'


def _dot(x: float, y: float, axis: Axis, span: tuple[float, float], kind: str) -> str:
    size = 5 if kind == "top" else 2.5
    return f'<circle class="{kind}" cx="{_x(x, span):.2f}%" cy="{_y(axis, y):.1f}" r="{size}"/>'


def _tops(chart: Chart, lines: Sequence[Line]) -> list[tuple[Mark, float]]:
    """Where the marks of kind `best` lie on the first line."""
    known = {x: y for x, y in lines[0].points if y is not None}
    return [(mark, known[mark.x]) for mark in chart.marks if mark.kind == "best" and mark.x in known]


def _mark(mark: Mark, span: tuple[float, float]) -> str:
    x = f"{_x(mark.x, span):.2f}%"
    return f'<line class="mark {mark.kind}" x1="{x}" x2="{x}" y1="0" y2="{HEIGHT}"/>'


def _fewer(marks: Sequence[Mark], span: tuple[float, float]) -> list[Mark]:
    """No more marks than can be told apart; among those that fall together the worst."""
    order = ("best", "error", "warning", "resume")
    kept: dict[int, Mark] = {}
    for mark in sorted(marks, key=lambda one: order.index(one.kind)):
        kept.setdefault(round(_x(mark.x, span) * _PLACES / 100), mark)
    return list(kept.values())


def _apart(xs: Sequence[float], span: tuple[float, float]) -> list[float]:
    return list({round(_x(x, span) * 2): x for x in xs}.values())


def _labels(axis: Axis) -> str:
    texts = "".join(
        f'<text x="{_GUTTER - 8}" y="{_y(axis, tick) + 4:.1f}" text-anchor="end">{short(tick)}</text>'
        for tick in axis.ticks
    )
    return f'<svg aria-hidden="true" width="{_GUTTER}" height="{HEIGHT + 22}">{texts}</svg>'


def short(value: float) -> str:
    """A number for the side of a chart.

    >>> short(0.00025), short(0.25), short(0)
    ('2.5e-4', '0.25', '0')
    """
    return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e") if 0 < abs(value) < 0.001 else number(value)


def _below(span: tuple[float, float], over: str) -> str:
    found = []
    for tick in ticks_of(span, whole=over == "epochs"):
        at = _x(tick, span)
        anchor = "start" if at < 2 else "end" if at > 97 else "middle"
        found.append(f'<text x="{at:.2f}%" y="{HEIGHT + 17}" text-anchor="{anchor}">{number(tick)}</text>')
    return "".join(found)


def _legend(lines: Sequence[Line]) -> str:
    items = "".join(
        f'<span><i class="c{line.style}{" faint" if line.faint else ""}"></i>{escape(line.name)} '
        f"<output>{_last(line)}</output></span>"
        for line in lines
    )
    return f'<p class="legend">{items}</p>'


def _last(line: Line) -> str:
    y = next((y for _, y in reversed(line.points) if y is not None), None)
    return "" if y is None else short(y)


def _summary(line: Line) -> str:
    known = [y for _, y in line.points if y is not None]
    return f"{line.name} {short(min(known))} to {short(max(known))}, last {short(known[-1])}"


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _data(lines: Sequence[Line], few: Sequence[Sequence[Point]]) -> str:
    content = [[[_round(x) for x, _ in points], [_round(y) for _, y in points]] for points in few]
    return json.dumps(content, separators=(",", ":"))
