"""Check the structures of a case: connected parts, overlaps, left and right, the order of vertebrae and ribs."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.catalogue import contralateral_name
from medseg.data.masks import join_combinations
from medseg.findings import Finding, error, names_of, note, warning
from medseg.grid import Grid

AIR_HU, VOID_HU = -900.0, -1100.0
OVER_AIR = 0.3
OVERLAP = 0.3
ISLANDS, SCATTERED_ISLANDS = 15, 40
SIDE_MM = 5.0
ORDER_MM = 5.0
VERTEBRAE = tuple(
    f"vertebrae_{level}"
    for level in ("S1", *(f"L{n}" for n in range(5, 0, -1)), *(f"T{n}" for n in range(12, 0, -1)),
                  *(f"C{n}" for n in range(7, 0, -1)))
)  # fmt: skip
Box = tuple[slice, ...]
_HOLLOW = ("lung", "trachea", "esophagus", "stomach", "duodenum", "small_bowel", "colon")
_SCATTERED = {"costal_cartilages", "small_bowel", "colon"}  # in parts by nature, or in coarse voxels
_NESTED = (
    ("kidney_cyst", "kidney"),
    ("spinal_cord", "vertebrae"),
    ("atrial_appendage", "heart"),
    ("vertebrae_S1", "sacrum"),
    ("brain", "skull"),
)


@dataclass(frozen=True)
class Structure:
    """Hold the measurements of one structure of one case.

    Args:
        voxels: their number.
        ml: their volume.
        center: their centroid, mm in RAS.
        rear: the centroid of the rearmost quarter, mm in RAS; `center` if it was not measured.
        borders: axes `I`, `J`, `K` at whose ends it touches the border of the volume.
        islands: connected parts (26 neighbors).
        stray: voxels outside the largest part.
        in_air: the fraction that lies over air or less; NaN if the image does not tell.
        digest: equal for equal masks.
    """

    voxels: int
    ml: float
    center: tuple[float, float, float]
    rear: tuple[float, float, float]
    borders: str
    islands: int
    stray: int
    in_air: float
    digest: str


def nonzero_box(array: npt.NDArray[Any]) -> Box | None:
    """Return the smallest box that holds all voxels that are not 0; None if there are none.

    Example:
        >>> nonzero_box(np.eye(3, dtype=np.uint8)[:, :, None])
        (slice(0, 3, None), slice(0, 3, None), slice(0, 1, None))
    """
    flat = array.T  # slices of the last axis are contiguous in the file's own order
    box: list[slice] = []
    for axis in range(flat.ndim):
        others = tuple(index for index in range(flat.ndim) if index != axis)
        part = flat[tuple(box)]
        filled = np.flatnonzero(part.max(axis=others) if part.dtype.kind == "u" else (part != 0).any(axis=others))
        if not len(filled):
            return None
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(reversed(box))


def measure(
    mask: npt.NDArray[np.bool_],
    box: Box,
    grid: Grid,
    hu: npt.NDArray[Any] | None = None,
    air: float = AIR_HU,
    rear: bool = True,
) -> Structure:
    """Measure one structure that is not empty.

    Args:
        mask: its voxels within `box`, `(I, J, K)`.
        box: the place of `mask` in the volume.
        grid: of the volume.
        hu: stored values of the image within `box`; None if they are no HU.
        air: the stored value below which there is air, or, for hollow organs, nothing.
        rear: whether to measure its rear, which takes as long as everything else.
    """
    part = mask.T  # C order for arrays from a file
    start = [int(axis.start) for axis in box]
    voxels = int(np.count_nonzero(part))
    # The centroid needs only the number of voxels in each plane across each axis.
    counts = (np.count_nonzero(part, axis=axes) for axes in ((0, 1), (0, 2), (1, 2)))
    index = [float(np.arange(len(line)) @ line) / voxels + first for line, first in zip(counts, start, strict=True)]
    center = _point(grid.affine[:3, :3] @ index + grid.affine[:3, 3])
    parts, islands = ndimage.label(part, structure=np.ones((3, 3, 3)))
    largest = int(np.bincount(parts[part]).max())
    borders = "".join(
        letter
        for letter, axis, size in zip("IJK", box, grid.shape, strict=True)
        if axis.start == 0 or axis.stop == size
    )
    key = repr([(axis.start, axis.stop) for axis in box]).encode() + np.packbits(part).tobytes()
    return Structure(
        voxels=voxels,
        ml=voxels * grid.voxel_ml,
        center=center,
        rear=_rear(part, start, grid) if rear else center,
        borders=borders,
        islands=int(islands),
        stray=voxels - largest,
        in_air=float("nan") if hu is None else float(np.count_nonzero(hu.T[part] < air) / voxels),
        digest=hashlib.sha256(key).hexdigest()[:16],
    )


def _rear(part: npt.NDArray[np.bool_], start: list[int], grid: Grid) -> tuple[float, float, float]:
    points = (np.argwhere(part)[:, ::-1] + start) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    y = points[:, 1]
    return _point(points[y <= y.min() + (y.max() - y.min()) / 4].mean(axis=0))


def _point(values: npt.NDArray[Any]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


def air_below(name: str) -> float:
    """Return the HU below which a structure cannot lie: that of air, or of nothing for those that hold gas."""
    return VOID_HU if name.startswith(_HOLLOW) else AIR_HU


def check_structures(structures: Mapping[str, Structure]) -> list[Finding]:
    """Report what is doubtful about the structures of one case, each by itself."""
    findings = []
    names_by_digest: dict[str, list[str]] = {}
    for name, structure in structures.items():
        if structure.in_air > OVER_AIR and structure.voxels >= 20:
            message = f"{structure.in_air:.0%} of it lies where the image shows nothing"
            fix = "Check that mask and image belong together."
            findings.append(warning("label-over-air", name, message, fix))
        limit = SCATTERED_ISLANDS if name in _SCATTERED else ISLANDS
        if structure.islands >= limit and structure.stray > 0.02 * structure.voxels:
            outside = f"{structure.stray} of {structure.voxels} voxels outside the largest"
            message = f"it has {structure.islands} connected parts, {outside}"
            findings.append(warning("islands", name, message, "Look at it; remove specks."))
        if structure.voxels >= 10:
            names_by_digest.setdefault(structure.digest, []).append(name)
    for names in names_by_digest.values():
        if len(names) > 1:
            message = "all of their voxels are the same"
            findings.append(warning("mask-duplicate", ", ".join(names), message, "Find out which structure it is."))
    cut = [name for name, structure in structures.items() if structure.borders]
    if cut:
        findings.append(note("touches-border", names_of(cut), f"{len(cut)} structures end at the border of the volume"))
    return findings


class Overlaps:
    """Count the voxels that structures of one case share, exactly, with two bytes per voxel.

    Every voxel holds the code of the combination of structures that overlap there.

    Args:
        shape: of the volume, `(I, J, K)`.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.codes = np.zeros(shape, dtype=np.uint16, order="F")
        self.combinations: list[tuple[str, ...]] = [()]
        self.pairs: Counter[tuple[str, str]] = Counter()

    def add(self, name: str, mask: npt.NDArray[np.bool_], box: Box) -> None:
        """Add one more structure.

        Raises:
            DataError: there are more than 65,535 combinations.
        """
        codes, mask = self.codes[box].T, mask.T
        before = codes[mask]
        counts = np.bincount(before, minlength=len(self.combinations))
        for code in np.flatnonzero(counts):
            for member in self.combinations[code]:
                self.pairs[member, name] += int(counts[code])
        codes[mask] = join_combinations(before, self.combinations, name, name)


def check_overlaps(pairs: Mapping[tuple[str, str], int], structures: Mapping[str, Structure]) -> list[Finding]:
    """Report overlaps: a note with the pairs, and a warning if one structure lies in another where none should."""
    if not pairs:
        return []
    ordered = sorted(pairs, key=lambda pair: -pairs[pair])
    listed = names_of([f"{first} and {second} ({pairs[first, second]})" for first, second in ordered], limit=4)
    count = f"{len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'}"
    message = f"{count} of structures share {sum(pairs.values())} voxels"
    fix = "prepare gives each voxel to the structure that is smaller in an adult."
    findings = [note("overlaps", listed, message, fix)]
    for pair in ordered:
        if structures[pair[0]].digest == structures[pair[1]].digest or _nested(*pair):
            continue
        small, large = sorted(pair, key=lambda name: structures[name].voxels)
        share = pairs[pair] / structures[small].voxels
        if share > OVERLAP and structures[small].voxels >= 20:
            message = f"{share:.0%} of {small} lies in {large} as well"
            fix = "Look at both; one of them is probably another structure."
            findings.append(warning("overlap-large", ", ".join(pair), message, fix))
    return findings


def _nested(first: str, second: str) -> bool:
    for name, enclosing in ((first, second), (second, first)):
        if any(name.startswith(inner) and enclosing.startswith(outer) for inner, outer in _NESTED):
            return True
    return False


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
