"""Numbers and durations as people write them.

Not `humanize`: it has no short form of a duration ("2 h 5 min"), and no number of three significant digits.
"""

from __future__ import annotations

import math


def number(value: float) -> str:
    """Return a number with three significant digits, a thin space between thousands and a true minus.

    >>> number(0.97656), number(250.0), number(0)
    ('0.977', '250', '0')
    """
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}".replace(",", "\u2009").replace("-", "\u2212")
    return text.rstrip("0").rstrip(".") if "." in text else text


def short(value: float) -> str:
    """Return a number as `number` does, in powers of ten if it is small.

    >>> short(0.00025), short(0.25), short(0)
    ('2.5e-4', '0.25', '0')
    """
    return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e") if 0 < abs(value) < 0.001 else number(value)


def invented(voxels: int) -> str:
    """Return what stands in place of a Dice where a structure was predicted that is not there.

    >>> invented(1234)
    'invented: 1,234 voxels'
    """
    return f"invented: {voxels:,} voxel{'s' * (voxels != 1)}"


def duration(seconds: float) -> str:
    """Return a duration in its one or two largest units.

    >>> duration(42), duration(600), duration(7300), duration(200_000)
    ('42 s', '10 min', '2 h 2 min', '2 d 7 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
