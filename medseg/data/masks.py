"""Binary masks to one label map: one mask in memory at a time, overlaps counted, precedence declared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.data.nifti import label_dtype, open_image, voxels
from medseg.errors import DataError
from medseg.grid import Grid
from medseg.labels import LabelMap


@dataclass(frozen=True)
class Merged:
    """A label map made of masks.

    Args:
        label: indices of the label map, `(I, J, K)`, uint8 where that suffices.
        grid: where it lies.
        overlaps: voxels in which a structure gave way: `{(winner, loser): voxels}`.
        missing: structures of the label map for which the case has no file.
    """

    label: npt.NDArray[np.unsignedinteger[Any]]
    grid: Grid
    overlaps: Mapping[tuple[str, str], int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Combined:
    """Masks in which overlaps stay: every voxel holds the number of a combination of structures.

    Args:
        codes: which combination a voxel holds, `(I, J, K)`, uint16; 0 is none.
        combinations: for each code the channels (index - 1) of the structures that meet there.
        grid: where it lies.
    """

    codes: npt.NDArray[np.uint16]
    combinations: tuple[tuple[int, ...], ...]
    grid: Grid


def read_mask(path: Path, grid: Grid, reference: Path) -> npt.NDArray[np.bool_]:
    """One binary mask, `(I, J, K)`, on the grid of its image.

    Raises:
        DataError: it cannot be read, or holds anything but 0 and 1.
        GeometryError: it has another shape or affine than the image.
    """
    image = open_image(path)
    grid.require(Grid.of_nifti(image), path, reference)
    data = voxels(image)
    mask = data == 1
    other = data[~mask & (data != 0)]
    if other.size:
        raise DataError(
            path,
            "must be a binary mask of 0 and 1",
            f"{other.size} voxels with other values, {other.flat[0]} among them",
        )
    return np.asarray(mask)


def merge_masks(image: Path, masks: Mapping[str, Path], labels: LabelMap) -> Merged:
    """Merge binary masks into one label map; where several claim a voxel, the smaller structure has it.

    The precedence is `LabelMap.painting_order`: it goes by the structures' usual size in an adult and is the
    same for every case.

    Args:
        image: the image the masks belong to; gives the grid.
        masks: file by structure name; names that `labels` does not hold are passed over.
        labels: which structures come out, and with which index.

    Raises:
        DataError: a file cannot be read or is no binary mask.
        GeometryError: a mask that does not lie on the image's grid.
    """
    grid = Grid.of_nifti(open_image(image))
    label = np.zeros(grid.shape, dtype=label_dtype(len(labels)))
    overlaps: Counter[tuple[str, str]] = Counter()
    for name in labels.painting_order():
        if name not in masks:
            continue
        mask = read_mask(masks[name], grid, image)
        counts = np.bincount(label[mask], minlength=len(labels))
        for loser in np.flatnonzero(counts[1:]) + 1:
            overlaps[name, labels.name(int(loser))] += int(counts[loser])
        label[mask] = labels.index(name)
    return Merged(label, grid, dict(overlaps), tuple(name for name in labels if name not in masks))


def combine_masks(image: Path, masks: Mapping[str, Path], labels: LabelMap) -> Combined:
    """Merge binary masks without loss: voxels that several structures claim keep all of them.

    Raises:
        DataError: see `merge_masks`; or more than 65535 different combinations in one case.
        GeometryError: a mask that does not lie on the image's grid.
    """
    grid = Grid.of_nifti(open_image(image))
    codes = np.zeros(grid.shape, dtype=np.uint16)
    combinations: list[tuple[int, ...]] = [()]
    for channel, name in enumerate(labels):
        if name not in masks:
            continue
        mask = read_mask(masks[name], grid, image)
        inside = codes[mask]
        new = np.zeros(len(combinations), dtype=np.uint16)
        for code in np.unique(inside):
            combinations.append((*combinations[code], channel))
            if len(combinations) > np.iinfo(np.uint16).max:
                raise DataError(image.parent, "may hold at most 65535 combinations of overlapping masks", "more")
            new[code] = len(combinations) - 1
        codes[mask] = new[inside]
    return Combined(codes, tuple(combinations), grid)
