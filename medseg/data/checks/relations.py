"""Structures against each other: left and right, the order of vertebrae and ribs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from medseg.data.checks.labels import Structure
from medseg.findings import Finding, error, warning
from medseg.labels import twin_name

SIDE_MM = 5.0
ORDER_MM = 5.0
VERTEBRAE = tuple(
    f"vertebrae_{level}"
    for level in ("S1", *(f"L{n}" for n in range(5, 0, -1)), *(f"T{n}" for n in range(12, 0, -1)),
                  *(f"C{n}" for n in range(7, 0, -1)))
)  # fmt: skip
_HEART_SIDE, _LIVER_SIDE = "spleen", "liver"


def sides(structures: Mapping[str, Structure]) -> list[Finding]:
    """Structures of the left to the right of their contralateral; all, where the case is mirrored.

    Positions are mm in RAS: x grows towards the right of the patient, so that left is smaller.
    """
    pairs = [(name, twin_name(name) or "") for name in structures if "left" in name.split("_")]
    pairs = [(left, right) for left, right in pairs if right in structures]
    wrong = [
        (left, right) for left, right in pairs if structures[left].centre[0] > structures[right].centre[0] + SIDE_MM
    ]
    if len(pairs) > 2 and len(wrong) == len(pairs):
        return [
            error(
                "mirrored",
                "",
                f"every one of its {len(pairs)} left structures lies to the right of its contralateral",
                "Its affine, or all names, are mirrored: compare with the source.",
            )
        ]
    found = [
        error(
            "sides-exchanged",
            f"{left}, {right}",
            f"the left one lies {structures[left].centre[0] - structures[right].centre[0]:.0f} mm to the right",
            "Exchange the two names, after a look at the image.",
        )
        for left, right in wrong
    ]
    if {_HEART_SIDE, _LIVER_SIDE} <= set(structures):
        over = structures[_HEART_SIDE].centre[0] - structures[_LIVER_SIDE].centre[0]
        if over > 4 * SIDE_MM:
            found.append(
                warning(
                    "situs",
                    f"{_HEART_SIDE}, {_LIVER_SIDE}",
                    f"the spleen lies {over:.0f} mm to the right of the liver",
                    "A mirrored image, or a patient with situs inversus: compare with the source.",
                )
            )
    return found


def vertebrae(structures: Mapping[str, Structure]) -> list[Finding]:
    """Vertebrae whose centres do not rise from S1 to C1."""
    heights = {name: structures[name].centre[2] for name in VERTEBRAE if name in structures}
    return _rising(heights, "vertebrae-order", "vertebra")


def ribs(structures: Mapping[str, Structure]) -> list[Finding]:
    """Ribs whose rear parts do not rise from the twelfth to the first, side by side.

    Ribs that end at the top or bottom of the volume are left out: what is seen of them may be their front.
    """
    found = []
    for side in ("left", "right"):
        names = [f"rib_{side}_{number}" for number in range(12, 0, -1)]
        whole = {name: structures[name].rear[2] for name in names if name in structures}
        whole = {name: height for name, height in whole.items() if not structures[name].borders}
        found += _rising(whole, "ribs-order", "rib")
    return found


def _rising(heights: Mapping[str, float], code: str, what: str) -> list[Finding]:
    """One error that names all neighbours of which the one that belongs below lies above."""
    names = list(heights)
    wrong = [(below, above) for below, above in itertools.pairwise(names) if heights[below] > heights[above] + ORDER_MM]
    if not wrong:
        return []
    printable = "; ".join(
        f"{below} {heights[below] - heights[above]:.0f} mm above {above}" for below, above in wrong[:4]
    )
    return [error(code, ", ".join(sorted({n for pair in wrong for n in pair})), f"a {what} lies too high: {printable}",
                  "Correct the names, after a look at the image.")]  # fmt: skip
