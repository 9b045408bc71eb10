"""Binary masks to one label map: one mask in memory at a time, overlaps counted, precedence declared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.data.gzip_io import read_decompressed
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


class MaskReader:
    """Binary masks of one case, one after the other, each on the grid of the image.

    The masks of a case mostly share their header to the last byte; such a header is looked at once.

    Args:
        grid: of the image.
        reference: the image, for messages.
    """

    def __init__(self, grid: Grid, reference: Path) -> None:
        self.grid, self.reference = grid, reference
        self._size = int(np.prod(grid.shape))
        self._known: bytes | bytearray = b""
        self._offset: int | None = None

    def read(self, path: Path) -> npt.NDArray[np.bool_]:
        """One mask, flat, in the order of the file (the first axis runs fastest).

        Raises:
            DataError: it cannot be read, or holds anything but 0 and 1.
            GeometryError: it has another shape or affine than the image.
        """
        raw = read_decompressed(path) if path.is_file() and path.stat().st_size else b""
        if not raw or raw[:_HEADER] != self._known:
            image = open_image(path)
            self.grid.require(Grid.of_nifti(image), path, self.reference)
            self._known, self._offset = raw[:_HEADER], _offset_of_bytes(image)
        if self._offset is None or len(raw) < self._offset + self._size:
            return _binary(path, voxels(open_image(path))).ravel(order="F")
        data = np.frombuffer(raw, np.uint8, self._size, self._offset)
        return data.view(np.bool_) if not data.size or data.max() <= 1 else _binary(path, data)


_HEADER = 352  # bytes of a NIfTI-1 header with the flag that says whether extensions follow


def _offset_of_bytes(image: Any) -> int | None:
    """Where the voxels begin, if each of them is one byte that means itself; else None."""
    stored = image.dataobj
    plain = stored.dtype == np.uint8 and (stored.slope, stored.inter) == (1.0, 0.0)
    return int(stored.offset) if plain else None


def _binary(path: Path, data: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    mask = data == 1
    other = data[~mask & (data != 0)]
    if other.size:
        raise DataError(
            path,
            "must be a binary mask of 0 and 1",
            f"{other.size} voxels with other values, {other.flat[0]} among them",
        )
    return np.asarray(mask)


def merge_masks(image: Path, masks: Mapping[str, Path], labels: LabelMap, precedence: Sequence[str] = ()) -> Merged:
    """Merge binary masks into one label map; where several claim a voxel, the smaller structure has it.

    The precedence is `LabelMap.overlap_priority`: it goes by the structures' usual size in an adult and is the
    same for every case. One mask is in memory at a time.

    Args:
        image: the image the masks belong to; gives the grid.
        masks: file by structure name; names that `labels` does not hold are passed over.
        labels: which structures come out, and with which index.
        precedence: structures that win over all others, the first over the second.

    Raises:
        DataError: a file cannot be read or is no binary mask.
        GeometryError: a mask that does not lie on the image's grid.
    """
    grid = Grid.of_nifti(open_image(image))
    label = np.zeros(grid.shape, dtype=label_dtype(len(labels)), order="F")
    flat, reader = label.reshape(-1, order="F"), MaskReader(grid, image)
    overlaps: Counter[tuple[str, str]] = Counter()
    for name in labels.overlap_priority(precedence):
        if name not in masks:
            continue
        gave_way = _paint(flat, reader.read(masks[name]), labels.index(name), len(labels))
        for loser in np.flatnonzero(gave_way[1:]) + 1:
            overlaps[name, labels.name(int(loser))] += int(gave_way[loser])
    return Merged(label, grid, dict(overlaps), tuple(name for name in labels if name not in masks))


def _paint(
    label: npt.NDArray[np.unsignedinteger[Any]], mask: npt.NDArray[np.bool_], index: int, classes: int
) -> npt.NDArray[np.int64]:
    """Set the label to `index` where the mask is; gives the voxels that each class had there before."""
    gave_way = np.zeros(classes, dtype=np.int64)
    for start in range(0, mask.size, _BLOCK):
        held = np.flatnonzero(mask[start : start + _BLOCK])
        if held.size:
            part = label[start : start + _BLOCK]
            gave_way += np.bincount(part[held], minlength=classes)
            part[held] = index
    return gave_way


_BLOCK = 1 << 20  # voxels looked at together: their positions stay in the processor's cache


def combine_masks(image: Path, masks: Mapping[str, Path], labels: LabelMap) -> Combined:
    """Merge binary masks without loss: voxels that several structures claim keep all of them.

    Raises:
        DataError: see `merge_masks`; or more than 65535 different combinations in one case.
        GeometryError: a mask that does not lie on the image's grid.
    """
    grid = Grid.of_nifti(open_image(image))
    codes = np.zeros(grid.shape, dtype=np.uint16, order="F")
    flat, reader = codes.reshape(-1, order="F"), MaskReader(grid, image)
    combinations: list[tuple[int, ...]] = [()]
    for channel, name in enumerate(labels):
        if name not in masks:
            continue
        held = np.flatnonzero(reader.read(masks[name]))
        inside = flat[held]
        new = np.zeros(len(combinations), dtype=np.uint16)
        for code in np.unique(inside):
            combinations.append((*combinations[code], channel))
            if len(combinations) > np.iinfo(np.uint16).max:
                raise DataError(image.parent, "may hold at most 65535 combinations of overlapping masks", "more")
            new[code] = len(combinations) - 1
        flat[held] = new[inside]
    return Combined(codes, tuple(combinations), grid)
