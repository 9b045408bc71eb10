"""Which structures of a case share voxels, and where they should not."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from medseg.data.checks.labels import Box, Structure, names_of
from medseg.errors import DataError
from medseg.findings import Finding, note, warning

OVERLAP = 0.3
_NESTED = (
    ("kidney_cyst", "kidney"),
    ("spinal_cord", "vertebrae"),
    ("atrial_appendage", "heart"),
    ("vertebrae_S1", "sacrum"),
    ("brain", "skull"),
)


class Overlaps:
    """Which structures of one case share voxels, exactly, with two bytes a voxel.

    Every voxel holds the number of the combination of structures that meet there.

    Args:
        shape: of the volume, `(I, J, K)`.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.codes = np.zeros(shape, dtype=np.uint16, order="F")
        self.combinations: list[tuple[str, ...]] = [()]
        self.pairs: Counter[tuple[str, str]] = Counter()

    def add(self, name: str, mask: npt.NDArray[np.bool_], box: Box) -> None:
        """Lay one more structure over the others.

        Raises:
            DataError: more than 65535 combinations meet.
        """
        codes, mask = self.codes[box].T, mask.T
        inside = codes[mask]
        counts = np.bincount(inside, minlength=len(self.combinations))
        new = np.zeros(len(counts), dtype=np.uint16)
        for code in np.flatnonzero(counts):
            for other in self.combinations[code]:
                self.pairs[other, name] += int(counts[code])
            if len(self.combinations) > np.iinfo(np.uint16).max:
                raise DataError(name, "may meet others in at most 65535 combinations", "more")
            new[code] = len(self.combinations)
            self.combinations.append((*self.combinations[code], name))
        codes[mask] = new[inside]


def examine(pairs: Mapping[tuple[str, str], int], structures: Mapping[str, Structure]) -> list[Finding]:
    """Overlaps: a note with the pairs, and a warning where one structure lies in another where none should."""
    if not pairs:
        return []
    found = []
    ordered = sorted(pairs, key=lambda pair: -pairs[pair])
    printable = names_of([f"{one} and {other} ({pairs[one, other]})" for one, other in ordered], most=4)
    found.append(
        note(
            "overlaps",
            printable,
            f"{len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'} of structures share {sum(pairs.values())} voxels",
            "prepare gives each voxel to the structure that is smaller by nature.",
        )
    )
    for one, other in ordered:
        if structures[one].digest == structures[other].digest or _nested(one, other):
            continue
        small = min((one, other), key=lambda name: structures[name].voxels)
        share = pairs[one, other] / structures[small].voxels
        if share > OVERLAP and structures[small].voxels >= 20:
            found.append(
                warning(
                    "overlap-large",
                    f"{one}, {other}",
                    f"{share:.0%} of {small} lies in {other if small == one else one} as well",
                    "Look at both; one of them is likely something else.",
                )
            )
    return found


def _nested(one: str, other: str) -> bool:
    return any(
        first.startswith(inner) and second.startswith(outer)
        for first, second in itertools.permutations((one, other))
        for inner, outer in _NESTED
    )
