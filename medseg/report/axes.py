"""Axes of charts and their ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol


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
