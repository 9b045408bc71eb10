"""Measure distances between surfaces for every structure at once: ASD, HD95 and NSD from one search.

Not MONAI's three metrics: each of those makes masks of every class, crops, erodes and searches on its own. Here one
pass over each label map gives the surfaces of all classes, and each surface voxel searches its nearest partner once.

A voxel belongs to the surface of its structure if one of its six face neighbors does not belong to the structure;
beyond the border of the volume nothing does. An axis that is one voxel long has no neighbors: a single slice is 2D.
Distances are between the centers of surface voxels, in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from medseg.errors import GeometryError
from medseg.metrics.label_arrays import case_name, class_indices, loops, require_same_shape
from medseg.metrics.overlap import annotated_array

Distances = npt.NDArray[np.float64]
# How many voxels around a surface voxel are tried, and how far along an axis, before a tree is built: most surfaces
# are a few voxels apart.
_STEPS, _REACH = 2000, 32
_ROUNDING_MM = 1e-6  # added to a tolerance: spacings are stored as float32


@dataclass(frozen=True)
class Surfaces:
    """The distances between the surfaces of one structure in prediction and truth.

    Where one of the two has no surface, the distances of the other's voxels are inf.

    Args:
        to_truth: from each surface voxel of the prediction to the nearest of the truth, mm.
        to_prediction: from each surface voxel of the truth to the nearest of the prediction, mm.
    """

    to_truth: Distances
    to_prediction: Distances

    @property
    def comparable(self) -> bool:
        """Whether both have a surface."""
        return bool(len(self.to_truth) and len(self.to_prediction))

    def asd(self) -> float:
        """Return the average symmetric surface distance, mm: the mean over both sides' voxels; NaN without both.

        MONAI's `compute_average_surface_distance(symmetric=True)`, which gives inf where one of them is empty.
        """
        if not self.comparable:
            return float("nan")
        return float((self.to_truth.sum() + self.to_prediction.sum()) / (len(self.to_truth) + len(self.to_prediction)))

    def hausdorff(self, percentile: float = 95.0) -> float:
        """Return the larger of the two directions' percentiles (linear interpolation), mm; NaN without both.

        MONAI's `compute_hausdorff_distance(percentile=95)`, whose metric aggregates to 0 where both are always empty.
        Huttenlocher et al. (1993), IEEE TPAMI 15.
        """
        if not self.comparable:
            return float("nan")
        return max(float(np.percentile(side, percentile)) for side in (self.to_truth, self.to_prediction))

    def nsd(self, tolerance_mm: float) -> float:
        """Return the share of the surface voxels of both that lie within `tolerance_mm` of the other surface.

        0 where one of them is empty, NaN where both are. MONAI's `compute_surface_dice(use_subvoxels=False)`.
        Nikolov et al. (2021), J Med Internet Res 23, who weigh surface elements by their area.
        """
        count = len(self.to_truth) + len(self.to_prediction)
        if not count:
            return float("nan")
        limit = tolerance_mm + _ROUNDING_MM
        within = np.count_nonzero(self.to_truth <= limit) + np.count_nonzero(self.to_prediction <= limit)
        return int(within) / count


def surface_distances(
    prediction: Any,
    truth: Any,
    num_classes: int,
    spacing: Sequence[float] | npt.NDArray[Any],
    annotated: Sequence[bool] | npt.NDArray[np.bool_] | None = None,
    case: str = "",
) -> list[Surfaces]:
    """Return the distances of every structure, from class 1 on.

    Args:
        prediction: class indices, `(I, J)` or `(I, J, K)`.
        truth: class indices, the same shape, on the same grid.
        num_classes: classes, background included.
        spacing: mm along each axis; or, for axes that are not at right angles, the 3x3 part of an affine.
        annotated: for each class, background included, whether it was annotated; the others have no surfaces.
        case: its id, for errors.

    Raises:
        GeometryError: the shapes differ, have not two or three axes, or the spacing is not above 0.
        LabelError: see `confusion_matrix`.

    >>> truth, prediction = np.zeros((2, 9, 9, 9), int)
    >>> truth[2:5, 2:5, 2:5], prediction[2:5, 2:5, 3:6] = 1, 1
    >>> (surfaces,) = surface_distances(prediction, truth, 2, (1.0, 1.0, 2.0))
    >>> surfaces.hausdorff(100), surfaces.nsd(1.0) < surfaces.nsd(2.0) == 1.0
    (2.0, True)
    """
    require_same_shape(prediction, truth, case)
    maps = [
        class_indices(prediction, num_classes, "prediction", case),
        class_indices(truth, num_classes, "truth", case),
    ]
    to_mm = _to_mm(spacing, maps[0].ndim, case)
    maps, to_mm = _in_memory_order([label.reshape(label.shape + (1,) * (3 - label.ndim)) for label in maps], to_mm)
    mask = annotated_array(annotated, num_classes, case)
    predicted, true = (_SurfaceVoxels(label, mask) for label in maps)
    in_both = (predicted.counts > 0) & (true.counts > 0)
    steps = _nearest_steps(to_mm)
    to_truth = _distances(predicted, true, in_both, steps, to_mm)
    to_prediction = _distances(true, predicted, in_both, steps, to_mm)
    return [Surfaces(*pair) for pair in zip(to_truth, to_prediction, strict=True)][1:]


def _to_mm(spacing: Sequence[float] | npt.NDArray[Any], axes: int, case: str) -> npt.NDArray[np.float64]:
    """Return the 3x3 matrix from steps of voxels to mm."""
    lengths = np.asarray(spacing, dtype=np.float64)
    if axes not in (2, 3):
        raise GeometryError(case_name(case), "surface distances need two or three axes", f"got {axes}")
    if lengths.shape == (axes,) and np.isfinite(lengths).all() and (lengths > 0).all():
        return np.diag([*lengths, 1.0][:3])
    if lengths.shape == (3, 3) and np.isfinite(lengths).all() and abs(np.linalg.det(lengths)) > 1e-12:
        return lengths
    came = f"got {np.array2string(lengths, separator=', ')}"
    raise GeometryError(f"{case_name(case)}, spacing", f"must be {axes} lengths above 0, in mm", came)


def _in_memory_order(
    maps: list[npt.NDArray[Any]], to_mm: npt.NDArray[np.float64]
) -> tuple[list[npt.NDArray[Any]], npt.NDArray[np.float64]]:
    """Return the maps with the last axis contiguous; NIfTI's run along the first one. Distances stay the same."""
    if all(label.flags.f_contiguous for label in maps):
        return [label.transpose() for label in maps], to_mm[:, ::-1]
    return [np.ascontiguousarray(label) for label in maps], to_mm


class _SurfaceVoxels:
    """The surface voxels of all structures in one label map, sorted by label."""

    def __init__(self, label: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> None:
        self.surface = surface_voxels(label)
        flat = self.surface.reshape(-1)
        index = np.flatnonzero(flat)
        index = index[mask[flat[index]]]
        self.index = index[np.argsort(flat[index], kind="stable")]
        self.label = flat[self.index]
        self.counts = np.bincount(self.label, minlength=len(mask))
        self.ends = np.cumsum(self.counts)

    def part(self, label: int) -> slice:
        """Return the range of one structure."""
        return slice(int(self.ends[label] - self.counts[label]), int(self.ends[label]))

    def voxels(self, part: slice | npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return voxel indices, `(N, 3)`."""
        return np.stack(np.unravel_index(self.index[part], self.surface.shape), axis=1)


def surface_voxels(label: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the label of every voxel on the surface of its structure, 0 elsewhere, `(I, J, K)`.

    >>> surface_voxels(np.ones((1, 3, 3), np.uint8))[0].tolist()
    [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
    """
    compiled = loops()
    if compiled is not None:
        surface = np.zeros(label.shape, label.dtype)
        compiled.surface_voxels(label, np.array(label.shape) > 1, surface)
        return surface
    edge = np.zeros(label.shape, bool)
    for axis, size in enumerate(label.shape):
        if size == 1:
            continue
        layers, edge_layers = np.moveaxis(label, axis, 0), np.moveaxis(edge, axis, 0)
        differs = layers[1:] != layers[:-1]
        edge_layers[1:] |= differs
        edge_layers[:-1] |= differs
        edge_layers[[0, -1]] = True
    return np.where(edge, label, label.dtype.type(0))


def _nearest_steps(to_mm: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], Distances]:
    """Return the steps to the nearest voxels around a voxel, nearest first, and their lengths in mm."""
    per_mm = np.linalg.norm(np.linalg.inv(to_mm), axis=1)  # voxels along each axis within 1 mm
    volume = abs(np.linalg.det(to_mm))
    # The radius of a ball of about _STEPS voxels, cut to _REACH voxels along the finest axis.
    radius = min((_STEPS * volume * 3 / (4 * np.pi)) ** (1 / 3), _REACH / float(per_mm.max()))
    reach = np.floor(radius * per_mm + 1e-9).astype(int)
    grid = np.meshgrid(*(np.arange(-count, count + 1) for count in reach), indexing="ij")
    steps = np.stack(grid, axis=-1).reshape(-1, 3)
    lengths = np.linalg.norm(steps @ to_mm.T, axis=1)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] <= radius][:_STEPS]  # a box holds all voxels up to its radius, and only some beyond
    return steps[order], lengths[order]


def _distances(
    start: _SurfaceVoxels,
    goal: _SurfaceVoxels,
    in_both: npt.NDArray[np.bool_],
    steps: tuple[npt.NDArray[np.int64], Distances],
    to_mm: npt.NDArray[np.float64],
) -> list[Distances]:
    """Return for each class the distances from the surface voxels of one label map to those of the other."""
    distances = np.full(len(start.index), np.inf)
    searching = np.flatnonzero(in_both[start.label])
    compiled = loops()
    if compiled is not None:
        by_steps = np.empty(len(searching))
        compiled.nearest(start.voxels(searching), start.label[searching], goal.surface, *steps, by_steps)
        distances[searching] = by_steps
    else:
        is_shared = goal.surface.reshape(-1)[start.index[searching]] == start.label[searching]
        distances[searching] = np.where(is_shared, 0.0, -1.0)
    # A tree for those that no step reached.
    for label in np.unique(start.label[distances < 0]):
        part = start.part(int(label))
        remaining = np.flatnonzero(distances[part] < 0) + part.start
        tree = cKDTree(goal.voxels(goal.part(int(label))) @ to_mm.T, compact_nodes=False, balanced_tree=False)
        distances[remaining] = tree.query(start.voxels(remaining) @ to_mm.T)[0]
    return [distances[start.part(label)] for label in range(len(in_both))]
