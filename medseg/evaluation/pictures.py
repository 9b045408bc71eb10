"""Masks of 2D slices, predicted or true: find them in a folder, and score them scan by scan.

The slices of a scan are one case, as in training (`ScanDice`): their pixels are counted together. Masks that overlap
count in full, each for its structure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.cases import Case
from medseg.data.class_colors import CLASSES, NAMES, infer_class_colors, read_class_colors
from medseg.data.layouts import collect, kaggle
from medseg.data.layouts.slices import IMAGES, MASKS, slice_info, without_ending
from medseg.data.slice_labels import read_masks
from medseg.errors import DataError, GeometryError, LabelError
from medseg.file_names import VOLUMES, entries, has_suffix
from medseg.image_io_2d import ClassColors, is_image_2d, read_comment, read_size
from medseg.labels import LabelMap
from medseg.metrics import GITractScores, Overlap, annotated_classes, gi_tract_scores, multilabel_overlap
from medseg.metrics.structures import OVERLAP, StructureScores, structure_rows

STRUCTURES, HAUSDORFF = "structures", "hausdorff"
_ONLY = "only "  # how the comment of a mask begins that names all structures that were searched for
Masks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Picture:
    """The masks of one slice.

    Args:
        case: its files; where there is no image but the mask alone, the mask stands for it.
        colors: what values or colors mean.
        arrays: masks in memory instead, `(rows, columns)` by structure.
    """

    case: Case
    colors: ClassColors
    arrays: Mapping[str, Masks] | None = None

    @property
    def structures(self) -> tuple[str, ...]:
        """What may be in it; of a truth, what is annotated."""
        return self.colors.structures if self.case.annotated is None else self.case.annotated

    @property
    def scan(self) -> tuple[str, int]:
        """Its scan, or itself if it belongs to none, and its number there."""
        info = self.case.slice or slice_info(self.case.id)
        return info.scan or self.case.id, info.number or 0

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns.

        Raises:
            DataError: the image cannot be read.
        """
        if self.arrays is None:
            return read_size(self.case.image)
        rows, columns = next(iter(self.arrays.values())).shape
        return rows, columns

    def masks(self, labels: LabelMap, reference: Picture) -> tuple[Masks, tuple[str, ...]]:
        """Return the masks of structures, `(structures, rows, columns)`, empty where there is none, and doubts.

        Args:
            labels: the structures.
            reference: the picture whose size they must have.

        Raises:
            DataError, GeometryError, LabelError: see `read_masks`.
        """
        shape, read = reference.size, self.arrays
        doubts: list[tuple[Path, str]] = []
        if read is None:
            read, doubts, _ = read_masks(replace(self.case, image=reference.case.image), self.colors, shape)
        elif self.size != shape:
            problem = "it has {} rows and {} columns, but its truth has {} and {}".format(*self.size, *shape)
            raise GeometryError(self.case.id, problem)
        stack = np.stack([read.get(name, np.zeros(shape, bool)) for name in labels])
        return stack, tuple(f"{path}: {text}" for path, text in doubts)

    @classmethod
    def of_arrays(cls, id: str, masks: Mapping[str, Masks], source: Path | None = None) -> Picture:
        """Return a picture whose masks are in memory."""
        return cls(Case(id, source or Path(id)), ClassColors.indexed(("background", *masks)), masks)


def holds_pictures(root: Path) -> bool:
    """Return whether a folder holds images and no volume, in the uppermost of its levels that hold either."""
    level = [root]
    while level:
        below, images = [], False
        for path in (path for folder in level for path in entries(folder)):
            if has_suffix(path, VOLUMES):
                return False
            images |= is_image_2d(path)
            below += [path] if path.is_dir() else []
        if images:
            return True
        level = below
    return False


def find_pictures(root: Path, names: LabelMap | None = None) -> dict[str, Picture]:
    """Find the masks of slices by the names of their images.

    Args:
        root: what `medseg predict` wrote, a data set of slices, a folder of masks, or one mask.
        names: what values of masks mean, if no `classes.json` or `label_map.json` beside or above them says so.

    Raises:
        DataError, LabelError: a data set that cannot be used, masks that cannot be read or have no names.
    """
    listing = collect(root) if root.is_dir() else None
    if listing is not None and listing.class_colors is not None:
        dataset = listing.to_index()
        colors = listing.class_colors
        if names and not _names_classes(root):
            colors = ClassColors.indexed(("background", *names))
        return {case.id: Picture(case, colors) for case in dataset.cases if case.masks or case.label is not None}
    inner = next((root / name for name in MASKS if (root / name).is_dir() and not (root / IMAGES).is_dir()), root)
    folder = inner if inner.is_dir() else inner.parent
    above = [path for path in (folder, folder.parent, folder.parent.parent) if _names_classes(path)]
    files = [inner] if inner.is_file() else list(filter(is_image_2d, entries(inner)))
    known = read_class_colors(above[0]) if above else ClassColors.indexed(("background", *names)) if names else None
    colors = known or infer_class_colors(files)
    if inner.is_file():
        return {without_ending(inner.stem): _picture(inner, colors, {})}
    single = root / STRUCTURES if (root / STRUCTURES).is_dir() else inner
    folders = {path.name: path for path in entries(single) if path.is_dir() and path.name in colors.structures}
    pictures: dict[str, Picture] = {}
    for path in files:
        masks = {name: inside / path.name for name, inside in folders.items() if (inside / path.name).is_file()}
        pictures[without_ending(path.stem)] = _picture(path, colors, masks)
    for name, inside in folders.items() if not pictures else ():
        for path in filter(is_image_2d, entries(inside)):
            id = without_ending(path.stem)
            masks = {**(pictures[id].case.masks if id in pictures else {}), name: path}
            pictures[id] = Picture(Case(id, path, masks=masks, annotated=tuple(masks)), colors)
    if not pictures:
        raise DataError(root, "the folder holds no masks of pictures (.png and the like)")
    return pictures


def _names_classes(folder: Path) -> bool:
    return (folder / CLASSES).is_file() or (folder / NAMES).is_file()


def _picture(path: Path, colors: ClassColors, masks: Mapping[str, Path]) -> Picture:
    comment = read_comment(path)
    only = comment.removeprefix(_ONLY).split(", ") if comment.startswith(_ONLY) else None
    annotated = None if only is None else tuple(name for name in colors.structures if name in only)
    return Picture(Case(without_ending(path.stem), path, None if masks else path, masks, annotated), colors)


def score_scan(
    truths: Sequence[Picture], predictions: Sequence[Picture], labels: LabelMap, scan: str
) -> tuple[list[StructureScores], tuple[str, ...], GITractScores | None]:
    """Score the slices of one scan together.

    Args:
        truths: of its slices, in order.
        predictions: of the same slices.
        labels: the structures.
        scan: its name.

    Returns:
        One row a structure, remarks, and what the scan gives to the score of the GI tract competition; None if the
        structures are others.

    Raises:
        DataError, GeometryError, LabelError: what is wrong with which file.
    """
    total: Overlap | None = None
    notes: tuple[str, ...] = ()
    slices: list[tuple[Masks, Masks]] = []
    for truth, prediction in zip(truths, predictions, strict=True):
        names = [name for name in labels if name in truth.structures]
        if not names:
            continue
        annotated = annotated_classes(labels, names, truth.case.id)
        (true, doubts), (predicted, more_doubts) = (side.masks(labels, truth) for side in (truth, prediction))
        notes += doubts + more_doubts
        overlap = multilabel_overlap(predicted, true, annotated, truth.case.id)
        total = overlap if total is None else total + overlap
        if is_gi_tract(labels):
            slices.append((predicted & np.asarray(overlap.annotated)[:, None, None], true))
    if total is None:
        raise LabelError(scan, "none of the structures to evaluate is annotated in the truth")
    columns: dict[str, Any] = {name: getattr(total, name) for name in OVERLAP}
    scores = None
    if is_gi_tract(labels):
        if len({true.shape for _, true in slices}) == 1:
            true, predicted = (np.stack([pair[side] for pair in slices], axis=-1) for side in (1, 0))
            scores = gi_tract_scores(predicted, true, case=scan)
        else:
            notes += ("its slices have several sizes, so it is not in the competition's score",)
        columns[HAUSDORFF] = np.full(len(labels) - 1, np.nan) if scores is None else scores.hausdorff
    return structure_rows(total, labels, float("nan"), columns), notes, scores


def is_gi_tract(labels: LabelMap) -> bool:
    """Return whether the structures are those of the UW-Madison GI tract competition."""
    return set(labels.structures) == set(kaggle.STRUCTURES)


def picture_measures(labels: LabelMap) -> tuple[str, ...]:
    """Return the names of the measures of slices."""
    return (*OVERLAP, HAUSDORFF) if is_gi_tract(labels) else OVERLAP
