"""Merge binary masks to one label map: one mask in memory at a time, overlaps counted, precedence declared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.data.gzip_io import read_decompressed
from medseg.data.nifti import open_nifti
from medseg.data.nifti_writer import label_dtype
from medseg.data.scan_rules import log_warnings
from medseg.data.volumes import read_header, read_scan
from medseg.errors import DataError, LabelError
from medseg.grid import Grid
from medseg.labels import LabelMap


@dataclass(frozen=True)
class Merged:
    """Hold a label map made of masks.

    Args:
        label: indices of the label map, `(I, J, K)`, uint8 if that suffices.
        grid: its grid.
        overlaps: voxels in which one structure won over another: `{(winner, loser): voxels}`.
        missing: structures of the label map for which the case has no file.
    """

    label: npt.NDArray[np.unsignedinteger[Any]]
    grid: Grid
    overlaps: Mapping[tuple[str, str], int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def flatten_masks(masks: npt.NDArray[np.bool_], labels: LabelMap) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Flatten masks that may overlap, `(structures, *spatial)`: a smaller structure covers a larger one."""
    label = np.zeros(masks.shape[1:], label_dtype(len(labels)))
    for name in labels.overlap_priority():
        label[masks[labels.index(name) - 1]] = labels.index(name)
    return label


@dataclass(frozen=True)
class Combined:
    """Hold masks with their overlaps: every voxel has the code of a combination of structures.

    Args:
        codes: the combination of each voxel, `(I, J, K)`, uint16; 0 is background.
        combinations: for each code the channels (index - 1) of the structures that meet there.
        grid: its grid.
    """

    codes: npt.NDArray[np.uint16]
    combinations: tuple[tuple[int, ...], ...]
    grid: Grid


class MaskReader:
    """Read the binary masks of one case, each of which must lie on the grid of the image.

    The masks of a case mostly share their header to the last byte; such a header is parsed once.

    Args:
        image: defines the grid; a warning that it has is not logged again for each of its masks.
        binarize: see `binary_mask`.
        accept: codes of the rules for scans that the user accepts.
    """

    def __init__(self, image: Path, binarize: float | None = None, accept: Sequence[str] = ()) -> None:
        self.image = image
        self.accept = accept
        self.binarize = binarize
        self.grid, warnings = read_header(image, accept)
        self._of_image = {problem.code for problem in warnings}
        self._size = int(np.prod(self.grid.shape))
        self._header: bytes | bytearray = b""
        self._offset: int | None = None

    def read(self, path: Path) -> npt.NDArray[np.bool_]:
        """Return one mask, flat, in the order of the file (the first axis runs fastest).

        Raises:
            DataError: it cannot be read, or see `binary_mask`.
            GeometryError: it has another shape or affine than the image.
        """
        raw = read_decompressed(path) if path.is_file() and path.stat().st_size else b""
        if not raw or raw[:_HEADER] != self._header:
            header = open_nifti(path)
            grid, warnings = read_header(path, self.accept)
            self.grid.require(grid, path, self.image)
            log_warnings(problem for problem in warnings if problem.code not in self._of_image)
            self._header = raw[:_HEADER]
            # One unscaled byte a voxel is taken as it lies there.
            plain = header.dtype == np.uint8 and (header.slope, header.intercept) == (1.0, 0.0)
            self._offset = header.offset if plain else None
        if self._offset is None or len(raw) < self._offset + self._size:
            return binary_mask(path, read_scan(path, self.accept).voxels, self.binarize).ravel(order="F")
        data = np.frombuffer(raw, np.uint8, self._size, self._offset)
        return binary_mask(path, data, self.binarize)


_HEADER = 352  # bytes of a NIfTI-1 header with the flag that says whether extensions follow


def binary_mask(thing: object, values: npt.NDArray[Any], binarize: float | None = None) -> npt.NDArray[np.bool_]:
    """Return which voxels belong to the structure of a mask.

    Args:
        thing: what errors call the mask, such as its file name.
        values: the mask's, any shape; values within rounding of 1 count as 1.
        binarize: threshold as a fraction of the full value (the maximum if that is over 1.5, else 1), for masks of 0
            and 255 or with soft edges; higher voxels are the structure. With None such masks raise an error.

    Raises:
        DataError: other values than 0 and 1 without `binarize`; and with it values that are not finite, that are below
            minus half of the full value, or that are so few different ones that they may be those of a label map.

    Example:
        >>> binary_mask("liver.nii.gz", np.array([0, 255, 255]), 0.5).tolist()
        [False, True, True]
    """
    if values.dtype == np.bool_ or not values.size:
        return np.asarray(values, np.bool_)
    low, high = values.min(), values.max()
    if values.dtype.kind in "iu" and low >= 0 and high <= 1:
        return values.view(np.bool_) if values.dtype.itemsize == 1 else values == 1
    mask = np.abs(values - np.float32(1)) <= _ROUNDING
    invalid = values[~mask & (values != 0)]
    if not invalid.size:
        return np.asarray(mask)
    if not np.isfinite(invalid).all():
        count = int(np.count_nonzero(~np.isfinite(invalid)))
        raise DataError(thing, f"{count:,} voxels of the mask are NaN or infinite", "", "Convert it from its source.")
    full = float(high) if high > _HIGHEST_SOFT else 1.0
    listed = ", ".join(f"{value:g}" for value in np.unique(invalid)[:4])
    problem = f"a binary mask holds 0 and 1, but {invalid.size:,} of its voxels have other values"
    between = np.unique(values[(values != 0) & (values != high)]).size if full > 1 else 0
    if low < -full / 2 or 0 < between < (_FEWEST_GRAYS if full >= _LOWEST_GRAY else np.inf):
        fix = "A label map needs its names in a label_map.json or dataset.json; a mask must hold one structure."
        raise DataError(thing, problem, f"such as {listed}", fix)
    if binarize is None:
        raise DataError(thing, problem, f"such as {listed}", OPTION.format(full=f"{full:g}"))
    return np.asarray(values > binarize * full)


_ROUNDING = 1e-5  # of 255 times a scale factor of 1/255
_HIGHEST_SOFT = 1.5  # interpolation with splines exceeds 1 by less
_LOWEST_GRAY = 200  # what has lower values, and several of them, is a label map
_FEWEST_GRAYS = 10  # of soft edges; fewer (127 and 255, 1 and 255) are structures
OPTION = "If values above half of {full} mean the structure, add --binarize 0.5 (training, Python: binarize=0.5)."


def label_values(
    values: npt.NDArray[Any], labels: LabelMap | None, thing: object, binarize: float | None = None
) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Return the values of a label map as indices, all of which have a name; that of one structure alone as a mask.

    Args:
        values: of any number type and shape.
        labels: the names; None if they are not known.
        thing: the name in errors.
        binarize: see `binary_mask`.

    Raises:
        DataError: see `binary_mask`.
        LabelError: a value that is no integer, or has no name.
    """
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    # Values without a name are those of a second structure; others between and above are a mask's.
    if labels is not None and labels.values[-1] >= len(labels):
        positions = np.minimum(np.searchsorted(labels.values, values), len(labels) - 1)  # NaN comes last
        unnamed = np.unique(values[np.asarray(labels.values)[positions] != values])
        if unnamed.size:
            raise LabelError(thing, "it holds values without a name", ", ".join(f"{value:g}" for value in unnamed[:4]))
        return positions.astype(label_dtype(len(labels)))
    classes = len(labels) if labels is not None else np.iinfo(np.uint16).max + 1
    if classes == 2 and not low <= -1 and not (_HIGHEST_SOFT < high < _LOWEST_GRAY):
        return binary_mask(thing, values, binarize).astype(np.uint8)
    if not (low >= 0 and high < classes):  # NaN fails, too
        problem = f"labels must be between 0 and {classes - 1}"
        raise LabelError(thing, problem, f"got {low:g} to {high:g}")
    indices = values.astype(label_dtype(classes), copy=False)
    if not np.array_equal(indices, values):
        fix = "It may have been resampled with interpolation; label maps need the nearest neighbor."
        raise LabelError(thing, "label values must be whole numbers", fix=fix)
    return indices


def merge_masks(
    image: Path,
    masks: Mapping[str, Path],
    labels: LabelMap,
    precedence: Sequence[str] = (),
    binarize: float | None = None,
    accept: Sequence[str] = (),
) -> Merged:
    """Merge binary masks into one label map; where masks overlap, the smaller structure wins.

    The precedence is `LabelMap.overlap_priority`: it goes by the structures' usual size in an adult and is the
    same for every case. One mask is in memory at a time.

    Args:
        image: the image of the masks; defines the grid.
        masks: file by structure name; names that `labels` does not hold are ignored.
        labels: the structures of the label map, with their indices.
        precedence: structures that win over all others, the first over the second.
        binarize: see `binary_mask`.
        accept: codes of the rules for scans that the user accepts.

    Raises:
        DataError: a file cannot be read or is no binary mask.
        GeometryError: a mask that does not lie on the image's grid.
    """
    reader = MaskReader(image, binarize, accept)
    grid = reader.grid
    label = np.zeros(grid.shape, dtype=label_dtype(len(labels)), order="F")
    flat = label.reshape(-1, order="F")
    overlaps: Counter[tuple[str, str]] = Counter()
    for name in labels.overlap_priority(precedence):
        if name not in masks:
            continue
        replaced = _write_class(flat, reader.read(masks[name]), labels.index(name), len(labels))
        for loser in np.flatnonzero(replaced[1:]) + 1:
            overlaps[name, labels.name(int(loser))] += int(replaced[loser])
    return Merged(label, grid, dict(overlaps), tuple(name for name in labels if name not in masks))


def _write_class(
    label: npt.NDArray[np.unsignedinteger[Any]], mask: npt.NDArray[np.bool_], index: int, classes: int
) -> npt.NDArray[np.int64]:
    """Set the label to `index` inside the mask; return the voxels that each class had there before."""
    replaced = np.zeros(classes, dtype=np.int64)
    for start in range(0, mask.size, _BLOCK):
        inside = np.flatnonzero(mask[start : start + _BLOCK])
        if inside.size:
            part = label[start : start + _BLOCK]
            replaced += np.bincount(part[inside], minlength=classes)
            part[inside] = index
    return replaced


_BLOCK = 1 << 20  # voxels processed together: their positions stay in the processor's cache


def combine_masks(
    image: Path,
    masks: Mapping[str, Path],
    labels: LabelMap,
    binarize: float | None = None,
    accept: Sequence[str] = (),
) -> Combined:
    """Merge binary masks without loss: voxels where structures overlap keep all of them; see `merge_masks`.

    Raises:
        DataError: see `merge_masks`; or more than 65535 different combinations in one case.
        GeometryError: a mask that does not lie on the image's grid.
    """
    reader = MaskReader(image, binarize, accept)
    grid = reader.grid
    codes = np.zeros(grid.shape, dtype=np.uint16, order="F")
    flat = codes.reshape(-1, order="F")
    combinations: list[tuple[int, ...]] = [()]
    for channel, name in enumerate(labels):
        if name in masks:
            inside = np.flatnonzero(reader.read(masks[name]))
            flat[inside] = join_combinations(flat[inside], combinations, channel, image.parent)
    return Combined(codes, tuple(combinations), grid)


def join_combinations(
    codes: npt.NDArray[np.uint16], combinations: list[tuple[Any, ...]], member: Any, thing: object
) -> npt.NDArray[np.uint16]:
    """Return the codes of voxels after one more structure has joined the combination of each.

    Args:
        codes: the combination of each voxel inside the structure.
        combinations: the members of each code; new combinations are appended.
        member: of the structure.
        thing: the name in errors.

    Raises:
        DataError: there are more than 65,535 combinations.

    Example:
        >>> combinations = [(), (0,)]
        >>> join_combinations(np.array([0, 1, 1], np.uint16), combinations, 4, "case").tolist(), combinations
        ([2, 3, 3], [(), (0,), (4,), (0, 4)])
    """
    joined = np.zeros(len(combinations), dtype=np.uint16)
    for code in np.flatnonzero(np.bincount(codes.ravel(), minlength=len(combinations))):
        if len(combinations) > np.iinfo(np.uint16).max:
            raise DataError(thing, "its structures overlap in more than 65,535 combinations")
        joined[code] = len(combinations)
        combinations.append((*combinations[code], member))
    return joined[codes]
