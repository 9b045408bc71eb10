"""Box plots in rows below each other, as inline SVG on one linear axis; see `charts` for how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medseg.report.charts import box_row, number


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
        return box_row(self, values, what, unit)
