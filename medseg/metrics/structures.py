"""Score one case, structure by structure: overlap, distances, volumes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import MedsegError
from medseg.labels import LabelMap
from medseg.metrics.overlap import Overlap, annotated_classes, confusion_matrix, overlap_scores
from medseg.metrics.surface import surface_distances

OVERLAP = ("dice", "iou", "precision", "recall", "relative_volume_error")
SURFACE = ("asd_mm", "hd95_mm")
TOLERANCES_MM = (1.0, 3.0)


@dataclass(frozen=True)
class StructureScores:
    """One structure in one case.

    Args:
        structure: its name.
        state: `found` (in truth and prediction, anywhere), `missed` (in the truth alone), `false positive` (in the
            prediction alone), `absent` (from both), or `not annotated`.
        truth_voxels: voxels that have it in the truth.
        predicted_voxels: voxels that have it in the prediction; 0 where it was not annotated.
        truth_ml: their volume in the truth, ml.
        predicted_ml: their volume in the prediction, ml.
        measures: value by name, see `measure_names`; NaN where it has none.
    """

    structure: str
    state: str
    truth_voxels: int
    predicted_voxels: int
    truth_ml: float
    predicted_ml: float
    measures: Mapping[str, float]


def measure_names(tolerances_mm: Sequence[float] = TOLERANCES_MM) -> tuple[str, ...]:
    """Return the names of all measures, in order.

    Raises:
        MedsegError: a tolerance below 0.

    >>> measure_names([2.5])[-2:]
    ('hd95_mm', 'nsd_2.5mm')
    """
    for tolerance in tolerances_mm:
        if not (np.isfinite(tolerance) and tolerance >= 0):
            raise MedsegError("NSD's tolerance", "must be 0 mm or more", f"got {tolerance:g}")
    return (*OVERLAP, *SURFACE, *(f"nsd_{tolerance:g}mm" for tolerance in tolerances_mm))


def structure_scores(
    prediction: Any,
    truth: Any,
    labels: LabelMap,
    spacing: Sequence[float] | npt.NDArray[Any],
    tolerances_mm: Sequence[float] = TOLERANCES_MM,
    annotated: Iterable[str] | None = None,
    case: str = "",
    surfaces: bool = True,
) -> list[StructureScores]:
    """Compare two label maps on one grid, structure by structure.

    Args:
        prediction: class indices, `(I, J)` or `(I, J, K)`.
        truth: class indices, the same shape.
        labels: what the indices mean, in both.
        spacing: mm along each axis, or the 3x3 part of the affine.
        tolerances_mm: of NSD.
        annotated: the structures that were annotated in this case; None for all. See `Overlap` for the others.
        case: its id, for errors.
        surfaces: whether to compute distances; without them ASD, HD95 and NSD are not among the measures.

    Raises:
        GeometryError: see `surface_distances`.
        LabelError: see `overlap_scores`, `annotated_classes`.

    Example:
        >>> label = np.eye(4, dtype=int)
        >>> liver, spleen = structure_scores(label, label, LabelMap(["liver", "spleen"]), (1.0, 1.0))
        >>> liver.measures["dice"], liver.state, spleen.state
        (1.0, 'found', 'absent')
    """
    names = measure_names(tolerances_mm)
    mask = annotated_classes(labels, annotated, case)
    overlap = overlap_scores(confusion_matrix(prediction, truth, len(labels), case), mask, case)
    columns = {name: getattr(overlap, name) for name in OVERLAP}
    if surfaces:
        distances = surface_distances(prediction, truth, len(labels), spacing, mask, case)
        columns["asd_mm"] = np.array([structure.asd() for structure in distances])
        columns["hd95_mm"] = np.array([structure.hausdorff() for structure in distances])
        for name, tolerance in zip(names[-len(tolerances_mm) :], tolerances_mm, strict=True):
            columns[name] = np.array([structure.nsd(tolerance) for structure in distances])
    return structure_rows(overlap, labels, _voxel_mm3(spacing) / 1000.0, columns)


def structure_rows(
    overlap: Overlap, labels: LabelMap, voxel_ml: float, columns: Mapping[str, npt.NDArray[Any]]
) -> list[StructureScores]:
    """Return the scores of a case as one row a structure.

    Args:
        overlap: of its structures.
        labels: their names.
        voxel_ml: volume of a voxel, ml.
        columns: each measure, `(structures,)`.
    """
    states = overlap.states
    return [
        StructureScores(
            structure=name,
            state=states[index],
            truth_voxels=int(overlap.true[index]),
            predicted_voxels=int(overlap.predicted[index]),
            truth_ml=float(overlap.true[index] * voxel_ml),
            predicted_ml=float(overlap.predicted[index] * voxel_ml),
            measures={measure: float(column[index]) for measure, column in columns.items()},
        )
        for index, name in enumerate(labels)
    ]


def _voxel_mm3(spacing: Sequence[float] | npt.NDArray[Any]) -> float:
    """Return the volume of a voxel, mm3; in 2D its area, as if it were 1 mm thick."""
    lengths = np.asarray(spacing, dtype=np.float64)
    return float(abs(np.linalg.det(lengths)) if lengths.ndim == 2 else np.prod(lengths))
