"""Each structure of a case: how much there is of it, where, over what, in how many parts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.findings import Finding, error, note, warning
from medseg.grid import Grid

AIR_HU, VOID_HU = -900.0, -1100.0
OVER_AIR = 0.3
ISLANDS, SCATTERED_ISLANDS = 15, 40
FEWEST = 5  # complete volumes that make a median worth comparing with
FACTOR = 4.0
Box = tuple[slice, ...]
_HOLLOW = ("lung", "trachea", "esophagus", "stomach", "duodenum", "small_bowel", "colon")
_SCATTERED = {"costal_cartilages", "small_bowel", "colon"}  # in parts by nature, or in coarse voxels


@dataclass(frozen=True)
class Structure:
    """What is known of one structure of one case.

    Args:
        voxels: how many.
        ml: their volume.
        centre: their centroid, mm in RAS.
        rear: the centroid of its rearmost quarter, mm in RAS; that of the whole where it was not asked for.
        borders: axes `I`, `J`, `K` at whose ends it touches the border of the volume.
        islands: connected parts (26 neighbours).
        stray: voxels outside of the largest part.
        in_air: the fraction that lies over air or less; NaN where the image does not tell.
        digest: equal for equal masks.
    """

    voxels: int
    ml: float
    centre: tuple[float, float, float]
    rear: tuple[float, float, float]
    borders: str
    islands: int
    stray: int
    in_air: float
    digest: str


def nonzero_box(array: npt.NDArray[Any]) -> Box | None:
    """The smallest box that holds all voxels that are not 0; None where there are none.

    >>> nonzero_box(np.eye(3, dtype=np.uint8)[:, :, None])
    (slice(0, 3, None), slice(0, 3, None), slice(0, 1, None))
    """
    flat = array.T  # slices of the last axis lie together in the file's own order
    box: list[slice] = []
    for axis in range(flat.ndim):
        rest = tuple(other for other in range(flat.ndim) if other != axis)
        part = flat[tuple(box)]
        filled = np.flatnonzero(part.max(axis=rest) if part.dtype.kind == "u" else (part != 0).any(axis=rest))
        if not len(filled):
            return None
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(reversed(box))


def stray_values(part: npt.NDArray[Any], location: object) -> Finding | None:
    """Whether a binary mask holds anything but 0 and 1."""
    low, high = part.min(), part.max()
    if part.dtype.kind in "iub" and low >= 0 and high <= 1:
        return None
    other = part[(part != 0) & (part != 1)]
    if not other.size:
        return None
    printable = ", ".join(f"{value:.4g}" for value in np.unique(other)[:4])
    return error(
        "mask-values",
        location,
        f"{other.size} of its voxels are neither 0 nor 1 but {printable}",
        "Make it binary; a label map needs its names in a label map or dataset.json.",
    )


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
        box: where `mask` lies in the volume.
        grid: the volume's.
        hu: stored values of the image within `box`; None where they are no HU.
        air: the stored value below which there is air, or, for hollow organs, nothing.
        rear: whether its rear is wanted, which takes as long as all the rest.
    """
    part = mask.T  # C order for what comes from a file
    start = [int(axis.start) for axis in box]
    voxels = int(np.count_nonzero(part))
    sums = (np.count_nonzero(part, axis=rest) for rest in ((0, 1), (0, 2), (1, 2)))
    index = [float(np.arange(len(line)) @ line) / voxels + first for line, first in zip(sums, start, strict=True)]
    centre = _point(grid.affine[:3, :3] @ index + grid.affine[:3, 3])
    named, islands = ndimage.label(part, structure=np.ones((3, 3, 3)))
    largest = int(np.bincount(named[part]).max())
    borders = "".join(
        letter
        for letter, axis, size in zip("IJK", box, grid.shape, strict=True)
        if axis.start == 0 or axis.stop == size
    )
    key = repr([(axis.start, axis.stop) for axis in box]).encode() + np.packbits(part).tobytes()
    return Structure(
        voxels=voxels,
        ml=voxels * grid.voxel_ml,
        centre=centre,
        rear=_rear(part, start, grid) if rear else centre,
        borders=borders,
        islands=int(islands),
        stray=voxels - largest,
        in_air=float("nan") if hu is None else float(np.count_nonzero(hu.T[part] < air) / voxels),
        digest=hashlib.sha256(key).hexdigest()[:16],
    )


def _rear(part: npt.NDArray[np.bool_], start: list[int], grid: Grid) -> tuple[float, float, float]:
    where = (np.argwhere(part)[:, ::-1] + start) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    y = where[:, 1]
    return _point(where[y <= y.min() + (y.max() - y.min()) / 4].mean(axis=0))


def _point(values: npt.NDArray[Any]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


def air_below(name: str) -> float:
    """The HU below which a structure cannot lie: that of air, or of nothing for those that hold gas."""
    return VOID_HU if name.startswith(_HOLLOW) else AIR_HU


def examine(structures: Mapping[str, Structure]) -> list[Finding]:
    """What is doubtful about the structures of one case, each by itself."""
    found = []
    for name, one in structures.items():
        if one.in_air > OVER_AIR and one.voxels >= 20:
            found.append(
                warning(
                    "label-over-air",
                    name,
                    f"{one.in_air:.0%} of it lies where the image shows nothing",
                    "See that mask and image belong together.",
                )
            )
        most = SCATTERED_ISLANDS if name in _SCATTERED else ISLANDS
        if one.islands >= most and one.stray > 0.02 * one.voxels:
            found.append(
                warning(
                    "islands",
                    name,
                    f"it lies in {one.islands} parts, {one.stray} of {one.voxels} voxels outside of the largest",
                    "Look at it; remove specks.",
                )
            )
    contralaterals: dict[str, list[str]] = {}
    for name, one in structures.items():
        if one.voxels >= 10:
            contralaterals.setdefault(one.digest, []).append(name)
    found += [
        warning("mask-duplicate", ", ".join(names), "they have the same voxels, every one", "Find out which it is.")
        for names in contralaterals.values()
        if len(names) > 1
    ]
    cut = [name for name, one in structures.items() if one.borders]
    if cut:
        found.append(note("touches-border", names_of(cut), f"{len(cut)} structures end at the border of the volume"))
    return found


def unannotated(names: Sequence[str]) -> Finding:
    """The note that a case has no file for structures which the set has elsewhere."""
    return note(
        "unannotated",
        names_of(names),
        f"{len(names)} structures of the set have no mask here: nobody looked for them",
        "Training must not take them for background; an empty mask says that a structure is absent.",
    )


def names_of(names: Sequence[str], most: int = 6) -> str:
    """A list of names that stays short.

    >>> names_of(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def outlying_volumes(volumes: Mapping[str, Mapping[str, float]]) -> list[Finding]:
    """Structures far larger or smaller than the same structure in the other cases of the set.

    Args:
        volumes: for each case, the ml of the structures that lie in it as a whole.
    """
    found = []
    for name in sorted({name for case in volumes.values() for name in case}):
        logs = {id: float(np.log(case[name])) for id, case in volumes.items() if name in case}
        if len(logs) < FEWEST:
            continue
        middle = float(np.median(list(logs.values())))
        spread = float(np.median([abs(value - middle) for value in logs.values()]))
        for id, value in logs.items():
            if abs(value - middle) > max(np.log(FACTOR), 5 * spread):
                found.append(
                    warning(
                        "volume-outlier",
                        name,
                        f"it measures {np.exp(value):.3g} ml, in the middle of {len(logs)} cases {np.exp(middle):.3g}",
                        "Look at it.",
                    ).of(id)
                )
    return found
