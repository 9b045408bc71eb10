"""Box plots in rows below each other, as inline SVG on one linear axis; see `charts` for how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from medseg.report.charts import number

_ROW, _MOST_DOTS = 22, 24


class LinearAxis:
    """An axis from 0 to 1, or to a round number above the largest value.

    Args:
        values: what will be shown.
        share: whether they are shares, which end at 1.

    >>> LinearAxis([0.3, 8.0]).ticks, LinearAxis([0.5], share=True).ticks
    ([0.0, 2.0, 4.0, 6.0, 8.0], [0.0, 0.25, 0.5, 0.75, 1.0])
    """

    def __init__(self, values: Sequence[float], share: bool = False) -> None:
        low, high = min([0.0, *values]), max([*values, 0.0])
        if share:
            step, low, high = 0.25, min(low, 0.0), 1.0
        else:
            rough = max(high - low, 1e-9) / 4
            power = 10.0 ** math.floor(math.log10(rough))
            step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
        first, last = math.floor(low / step + 1e-9), max(math.ceil(high / step - 1e-9), 1)
        self.ticks = [round(step * index, 10) for index in range(first, last + 1)]

    def at(self, value: float) -> float:
        """Where a value lies, in percent of the axis."""
        low, high = self.ticks[0], self.ticks[-1]
        return min(100.0, max(0.0, 100 * (value - low) / (high - low)))

    def header(self) -> str:
        """The numbers of the axis as a strip of their own."""
        texts = []
        for index, tick in enumerate(self.ticks):
            anchor = "start" if index == 0 else "end" if index == len(self.ticks) - 1 else "middle"
            kind = ' class="inner"' if anchor == "middle" else ""
            texts.append(f'<text{kind} x="{self.at(tick):.2f}%" y="12" text-anchor="{anchor}">{number(tick)}</text>')
        return f'<svg aria-hidden="true" width="100%" height="16">{"".join(texts)}</svg>'

    def box(self, values: Sequence[float], what: str, unit: str = "") -> str:
        """One row: whiskers to the ends, a box round the middle half, a line at the median, dots for few values.

        Args:
            values: one of each case; at least one.
            what: the name of the row, for those who have it read to them.
            unit: written behind the numbers.
        """
        low, first, middle, third, high = (float(q) for q in np.percentile(values, [0, 25, 50, 75, 100]))
        parts = [
            f'<line class="grid" x1="{self.at(tick):.2f}%" x2="{self.at(tick):.2f}%" y1="0" y2="{_ROW}"/>'
            for tick in self.ticks
        ]
        if len(values) > 1:
            parts.append(f'<line class="line" x1="{self.at(low):.2f}%" x2="{self.at(high):.2f}%" y1="11" y2="11"/>')
        if len(values) > 2:
            start, end = self.at(first), self.at(third)
            parts.append(
                f'<rect class="box" x="{start:.2f}%" y="6" width="{max(0.3, end - start):.2f}%" height="10" rx="3"/>'
            )
            parts.append(f'<line class="mid" x1="{self.at(middle):.2f}%" x2="{self.at(middle):.2f}%" y1="4" y2="18"/>')
        dots = values if len(values) <= _MOST_DOTS else (low, high)
        parts += [f'<circle class="dot" cx="{self.at(value):.2f}%" cy="11" r="2.5"/>' for value in dots]
        cases = "1 case" if len(values) == 1 else f"{len(values)} cases"
        label = f"{what}: {cases}, {number(low)} to {number(high)}{unit}, median {number(middle)}{unit}"
        return (
            f'<svg role="img" aria-label="{escape(label)}" width="100%" height="{_ROW}">'
            f"<title>{escape(label)}</title>{''.join(parts)}</svg>"
        )
