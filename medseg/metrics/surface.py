"""Distances between surfaces for every structure at once: ASD, HD95 and NSD from one search.

Not MONAI's three metrics: each of those makes masks of every class, crops, erodes and searches on its own. Here one
pass over each label map gives the surfaces of all classes, and each surface voxel looks for its nearest partner once.

A voxel belongs to the surface of its structure if one of its six face neighbours does not belong to the structure;
beyond the border of the volume nothing does. An axis that is one voxel long has no neighbours: a single slice is 2D.
Distances are between the centres of surface voxels, in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from medseg.errors import GeometryError, LabelError
from medseg.metrics.kernels import class_indices, kernels, name_of, same_shape

Distances = npt.NDArray[np.float64]
_STEPS, _REACH = 2000, 32  # how many voxels around a surface voxel, and how far, are looked at before a tree is built
_ROUNDING_MM = 1e-6  # what is that near to a tolerance is within it: spacings are stored as float32


@dataclass(frozen=True)
class Surfaces:
    """The distances between the surfaces of one structure in prediction and truth.

    Where one of the two has no surface there are no distances: both arrays hold inf, as many as there are voxels.

    Args:
        to_truth: of each surface voxel of the prediction to the nearest of the truth, mm.
        to_prediction: of each surface voxel of the truth to the nearest of the prediction, mm.
    """

    to_truth: Distances
    to_prediction: Distances

    @property
    def comparable(self) -> bool:
        """Whether both have a surface."""
        return bool(len(self.to_truth) and len(self.to_prediction))

    def asd(self) -> float:
        """The average symmetric surface distance, mm: the mean over the surface voxels of both; NaN without both.

        MONAI's `compute_average_surface_distance(symmetric=True)`, which gives inf where one of them is empty.
        """
        if not self.comparable:
            return float("nan")
        return float((self.to_truth.sum() + self.to_prediction.sum()) / (len(self.to_truth) + len(self.to_prediction)))

    def hausdorff(self, percentile: float = 95.0) -> float:
        """The larger of the two directions' percentiles (linear between neighbours), mm; NaN without both.

        MONAI's `compute_hausdorff_distance(percentile=95)`, whose metric aggregates to 0 where both are always empty.
        Huttenlocher et al. (1993), IEEE TPAMI 15.
        """
        if not self.comparable:
            return float("nan")
        return max(float(np.percentile(one, percentile)) for one in (self.to_truth, self.to_prediction))

    def nsd(self, tolerance_mm: float) -> float:
        """The share of the surface voxels of both that lie within `tolerance_mm` of the other surface.

        0 where one of them is empty, NaN where both are. MONAI's `compute_surface_dice(use_subvoxels=False)`.
        Nikolov et al. (2021), J Med Internet Res 23, who weigh surface elements by their area.
        """
        count = len(self.to_truth) + len(self.to_prediction)
        if not count:
            return float("nan")
        near = sum(
            int(np.count_nonzero(one <= tolerance_mm + _ROUNDING_MM)) for one in (self.to_truth, self.to_prediction)
        )
        return near / count


def surface_distances(
    prediction: Any,
    truth: Any,
    num_classes: int,
    spacing: Sequence[float] | npt.NDArray[Any],
    annotated: Sequence[bool] | npt.NDArray[np.bool_] | None = None,
    case: str = "",
) -> list[Surfaces]:
    """The distances of every structure, from class 1 on.

    Args:
        prediction: class indices, `(I, J)` or `(I, J, K)`.
        truth: class indices, the same shape, on the same grid.
        num_classes: classes, background included.
        spacing: mm along each axis; or, for axes that are not at right angles, the 3x3 part of an affine.
        annotated: for each class, background included, whether somebody looked for it; what was not has no
            surfaces at all.
        case: its id, for errors.

    Raises:
        GeometryError: shapes that differ, not two or three axes, a spacing that is not above 0.
        LabelError: see `confusion_matrix`.

    >>> truth, prediction = np.zeros((2, 9, 9, 9), int)
    >>> truth[2:5, 2:5, 2:5], prediction[2:5, 2:5, 3:6] = 1, 1
    >>> (one,) = surface_distances(prediction, truth, 2, (1.0, 1.0, 2.0))
    >>> one.hausdorff(100), one.nsd(1.0) < one.nsd(2.0) == 1.0
    (2.0, True)
    """
    same_shape(prediction, truth, case)
    maps = [
        class_indices(prediction, num_classes, "prediction", case),
        class_indices(truth, num_classes, "truth", case),
    ]
    to_mm = _to_mm(spacing, maps[0].ndim, case)
    maps, to_mm = _in_memory_order([one.reshape(one.shape + (1,) * (3 - one.ndim)) for one in maps], to_mm)
    held = np.ones(num_classes, bool) if annotated is None else np.array(annotated, bool)
    if held.shape != (num_classes,):
        raise LabelError(
            f"{name_of(case)}, annotated", f"must say so of each of {num_classes} classes", str(held.shape)
        )
    sides = [_Side(one, held) for one in maps]
    shared = (sides[0].counts > 0) & (sides[1].counts > 0)
    near = _steps(to_mm)
    one, other = (_all_distances(side, back, shared, near, to_mm) for side, back in (sides, sides[::-1]))
    return [Surfaces(a, b) for a, b in zip(one, other, strict=True)][1:]


def _to_mm(spacing: Sequence[float] | npt.NDArray[Any], axes: int, case: str) -> npt.NDArray[np.float64]:
    """The 3x3 matrix from steps of voxels to mm."""
    given = np.asarray(spacing, dtype=np.float64)
    if axes not in (2, 3):
        raise GeometryError(name_of(case), "must have two or three axes for distances between surfaces", f"{axes}")
    if given.shape == (axes,) and np.isfinite(given).all() and (given > 0).all():
        return np.diag([*given, 1.0][:3])
    if given.shape == (3, 3) and np.isfinite(given).all() and abs(np.linalg.det(given)) > 1e-12:
        return given
    raise GeometryError(
        f"{name_of(case)}, spacing", f"must be {axes} lengths above 0, in mm", np.array2string(given, separator=", ")
    )


def _in_memory_order(
    maps: list[npt.NDArray[Any]], to_mm: npt.NDArray[np.float64]
) -> tuple[list[npt.NDArray[Any]], npt.NDArray[np.float64]]:
    """Views with the last axis running fastest, where the files had the first one; distances stay what they are."""
    if all(one.flags.f_contiguous for one in maps):
        return [one.transpose() for one in maps], to_mm[:, ::-1]
    return [np.ascontiguousarray(one) for one in maps], to_mm


class _Side:
    """The surfaces of all structures in one label map, in the order of their labels."""

    def __init__(self, label: npt.NDArray[Any], held: npt.NDArray[np.bool_]) -> None:
        self.surface = surface_voxels(label)
        flat = self.surface.reshape(-1)
        found = np.flatnonzero(flat)
        found = found[held[flat[found]]]
        order = np.argsort(flat[found], kind="stable")
        self.where = found[order]
        self.label = flat[self.where]
        self.counts = np.bincount(self.label, minlength=len(held))
        self.ends = np.cumsum(self.counts)

    def part(self, number: int) -> slice:
        """Where one structure stands."""
        return slice(int(self.ends[number] - self.counts[number]), int(self.ends[number]))

    def places(self, part: slice | npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Voxel indices, `(N, 3)`."""
        return np.stack(np.unravel_index(self.where[part], self.surface.shape), axis=1)


def surface_voxels(label: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The label of every voxel that lies on the surface of its structure, 0 elsewhere, `(I, J, K)`.

    >>> surface_voxels(np.ones((1, 3, 3), np.uint8))[0].tolist()
    [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
    """
    compiled = kernels()
    if compiled is not None:
        found = np.zeros(label.shape, label.dtype)
        compiled.surface_voxels(label, np.array(label.shape) > 1, found)
        return found
    edge = np.zeros(label.shape, bool)
    for axis, size in enumerate(label.shape):
        if size == 1:
            continue
        moved, marked = np.moveaxis(label, axis, 0), np.moveaxis(edge, axis, 0)
        differs = moved[1:] != moved[:-1]
        marked[1:] |= differs
        marked[:-1] |= differs
        marked[[0, -1]] = True
    return np.where(edge, label, label.dtype.type(0))


def _steps(to_mm: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], Distances]:
    """The steps to the nearest voxels around, the nearest first, and their lengths in mm."""
    per_mm = np.linalg.norm(np.linalg.inv(to_mm), axis=1)  # voxels along each axis within 1 mm
    volume = abs(np.linalg.det(to_mm))
    radius = min((_STEPS * volume * 3 / (4 * np.pi)) ** (1 / 3), _REACH / float(per_mm.max()))
    reach = np.floor(radius * per_mm + 1e-9).astype(int)
    steps = np.stack(np.meshgrid(*(np.arange(-one, one + 1) for one in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    lengths = np.linalg.norm(steps @ to_mm.T, axis=1)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] <= radius][:_STEPS]  # beyond these nothing is nearer
    return steps[order], lengths[order]


def _all_distances(
    side: _Side,
    other: _Side,
    shared: npt.NDArray[np.bool_],
    near: tuple[npt.NDArray[np.int64], Distances],
    to_mm: npt.NDArray[np.float64],
) -> list[Distances]:
    """For each class the distances of the surface voxels of one side to those of the other."""
    found = np.full(len(side.where), np.inf)
    wanted = np.flatnonzero(shared[side.label])
    compiled = kernels()
    if compiled is not None:
        short = np.empty(len(wanted))
        compiled.nearest(side.places(wanted), side.label[wanted], other.surface, *near, short)
        found[wanted] = short
    else:
        found[wanted] = np.where(other.surface.reshape(-1)[side.where[wanted]] == side.label[wanted], 0.0, -1.0)
    for number in np.unique(side.label[found < 0]):
        part = side.part(int(number))
        left = np.flatnonzero(found[part] < 0) + part.start
        tree = cKDTree(other.places(other.part(int(number))) @ to_mm.T, compact_nodes=False, balanced_tree=False)
        found[left] = tree.query(side.places(left) @ to_mm.T)[0]
    return [found[side.part(number)] for number in range(len(shared))]
