"""Everything that is said of one case, structure by structure: overlap, distances, volumes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import MedsegError
from medseg.labels import LabelMap
from medseg.metrics.overlap import annotated_classes, confusion_matrix, overlap_scores
from medseg.metrics.surface import surface_distances

OVERLAP = ("dice", "iou", "precision", "recall", "relative_volume_error")
SURFACE = ("asd_mm", "hd95_mm")
TOLERANCES_MM = (1.0, 3.0)


@dataclass(frozen=True)
class StructureScores:
    """One structure in one case.

    Args:
        structure: its name.
        state: `found` (in truth and prediction, wherever), `missed` (in the truth alone), `false positive` (in the
            prediction alone), `absent` (in neither), or `not annotated`: nobody looked for it.
        truth_voxels: how many carry its label in the truth.
        predicted_voxels: how many do in the prediction; 0 where it was not annotated.
        truth_ml: their volume in the truth.
        predicted_ml: their volume in the prediction.
        measures: value by name, see `measure_names`; NaN where there is none.
    """

    structure: str
    state: str
    truth_voxels: int
    predicted_voxels: int
    truth_ml: float
    predicted_ml: float
    measures: Mapping[str, float]


def measure_names(tolerances_mm: Sequence[float] = TOLERANCES_MM) -> tuple[str, ...]:
    """The names of all measures, in order.

    Raises:
        MedsegError: a tolerance that is not 0 or more.

    >>> measure_names([2.5])[-2:]
    ('hd95_mm', 'nsd_2.5mm')
    """
    for tolerance in tolerances_mm:
        if not (np.isfinite(tolerance) and tolerance >= 0):
            raise MedsegError("NSD's tolerance", "must be 0 or more, in mm", f"{tolerance}")
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
        annotated: the structures somebody looked for in this case; None for all. See `Overlap` for what becomes of
            the others.
        case: its id, for errors.
        surfaces: whether distances are wanted; without them ASD, HD95 and NSD are not among the measures.

    Raises:
        GeometryError, LabelError: see `surface_distances`, `overlap_scores`, `annotated_classes`.

    >>> found = structure_scores(np.eye(4, dtype=int), np.eye(4, dtype=int), LabelMap(["liver", "spleen"]), (1.0, 1.0))
    >>> found[0].measures["dice"], found[0].state, found[1].state
    (1.0, 'found', 'absent')
    """
    names = measure_names(tolerances_mm)
    held = annotated_classes(labels, annotated, case)
    pair = overlap_scores(confusion_matrix(prediction, truth, len(labels), case), held, case)
    columns = {name: getattr(pair, name) for name in OVERLAP}
    if surfaces:
        found = surface_distances(prediction, truth, len(labels), spacing, held, case)
        columns["asd_mm"] = np.array([one.asd() for one in found])
        columns["hd95_mm"] = np.array([one.hausdorff() for one in found])
        for name, tolerance in zip(names[-len(tolerances_mm) :], tolerances_mm, strict=True):
            columns[name] = np.array([one.nsd(tolerance) for one in found])
    voxel_ml = _voxel_mm3(spacing) / 1000.0
    return [
        StructureScores(
            name,
            pair.states[index],
            int(pair.true[index]),
            int(pair.predicted[index]),
            float(pair.true[index] * voxel_ml),
            float(pair.predicted[index] * voxel_ml),
            {measure: float(column[index]) for measure, column in columns.items()},
        )
        for index, name in enumerate(labels)
    ]


def _voxel_mm3(spacing: Sequence[float] | npt.NDArray[Any]) -> float:
    """The volume of a voxel, mm3; its area in 2D, as if it were 1 mm thick."""
    given = np.asarray(spacing, dtype=np.float64)
    return float(abs(np.linalg.det(given)) if given.ndim == 2 else np.prod(given))
