"""Check structures against each other: left and right, the order of vertebrae and ribs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from medseg.catalogue import contralateral_name
from medseg.data.checks.structures import Structure
from medseg.findings import Finding, error, warning

SIDE_MM = 5.0
ORDER_MM = 5.0
VERTEBRAE = tuple(
    f"vertebrae_{level}"
    for level in ("S1", *(f"L{n}" for n in range(5, 0, -1)), *(f"T{n}" for n in range(12, 0, -1)),
                  *(f"C{n}" for n in range(7, 0, -1)))
)  # fmt: skip


def check_sides(structures: Mapping[str, Structure]) -> list[Finding]:
    """Report left structures to the right of their contralateral; one finding if the case is mirrored.

    Positions are mm in RAS: x grows towards the patient's right, so that left is smaller.
    """
    pairs = [(name, contralateral_name(name) or "") for name in structures if "left" in name.split("_")]
    pairs = [(left, right) for left, right in pairs if right in structures]
    excess = {(left, right): structures[left].center[0] - structures[right].center[0] for left, right in pairs}
    wrong = [pair for pair in pairs if excess[pair] > SIDE_MM]
    if len(pairs) > 2 and len(wrong) == len(pairs):
        message = f"each of its {len(pairs)} left structures lies to the right of its contralateral"
        return [error("mirrored", "", message, "Its affine, or all names, are mirrored: compare with the source.")]
    findings = []
    for pair in wrong:
        message = f"the left one lies {excess[pair]:.0f} mm to the right"
        findings.append(
            error("sides-exchanged", ", ".join(pair), message, "Look at the image, then exchange the names.")
        )
    if {"spleen", "liver"} <= set(structures):
        distance = structures["spleen"].center[0] - structures["liver"].center[0]
        if distance > 4 * SIDE_MM:
            message = f"the spleen lies {distance:.0f} mm to the right of the liver"
            fix = "This is a mirrored image, or a patient with situs inversus: compare with the source."
            findings.append(warning("situs", "spleen, liver", message, fix))
    return findings


def check_vertebrae(structures: Mapping[str, Structure]) -> list[Finding]:
    """Report vertebrae whose centers do not rise from S1 to C1."""
    heights = {name: structures[name].center[2] for name in VERTEBRAE if name in structures}
    return _check_rising(heights, "vertebrae-order", "vertebra")


def check_ribs(structures: Mapping[str, Structure]) -> list[Finding]:
    """Report ribs whose rear parts do not rise from the twelfth to the first, on either side.

    Ribs that end at the border of the volume are left out: the visible part may be their front.
    """
    findings = []
    for side in ("left", "right"):
        names = [f"rib_{side}_{number}" for number in range(12, 0, -1)]
        heights = {
            name: structures[name].rear[2] for name in names if name in structures and not structures[name].borders
        }
        findings += _check_rising(heights, "ribs-order", "rib")
    return findings


def _check_rising(heights: Mapping[str, float], code: str, kind: str) -> list[Finding]:
    """Report in one error all neighbors of which the lower one lies above the upper one."""
    wrong = [
        (lower, upper) for lower, upper in itertools.pairwise(heights) if heights[lower] > heights[upper] + ORDER_MM
    ]
    if not wrong:
        return []
    listed = "; ".join(f"{lower} {heights[lower] - heights[upper]:.0f} mm above {upper}" for lower, upper in wrong[:4])
    names = ", ".join(sorted({name for pair in wrong for name in pair}))
    fix = "Look at the image, then correct the names."
    return [error(code, names, f"a {kind} lies too high: {listed}", fix)]
