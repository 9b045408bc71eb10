"""Predictions and truths of the same cases, matched by case id and by the names of structures, never by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.cases import Case
from medseg.data.datasets import renumbered
from medseg.data.masks import merge_masks
from medseg.data.nifti import read_grid
from medseg.errors import DataError, GeometryError, LabelError
from medseg.evaluation.sources import Source, ordered
from medseg.grid import Grid
from medseg.labels import LabelMap

Label = npt.NDArray[np.unsignedinteger[Any]]
_SHOWN = 5


@dataclass(frozen=True)
class Pairs:
    """What is compared with what.

    Args:
        cases: truth and prediction by case id.
        labels: the structures that both sides know.
        not_predicted: structures of the truth that the predictions do not know: they are not evaluated.
        not_in_truth: structures of the predictions that no truth knows: they count as background.
        without_prediction: cases that have only a truth.
        without_truth: cases that have only a prediction.
    """

    cases: Mapping[str, tuple[Source, Source]]
    labels: LabelMap
    not_predicted: tuple[str, ...] = ()
    not_in_truth: tuple[str, ...] = ()
    without_prediction: tuple[str, ...] = ()
    without_truth: tuple[str, ...] = ()


def match(
    predictions: Mapping[str, Source],
    truths: Mapping[str, Source],
    structures: Sequence[str] = (),
    partial: bool = False,
) -> Pairs:
    """Pair predictions with truths.

    Args:
        predictions: by case id.
        truths: by case id.
        structures: names and groups to evaluate; all that both sides know by default.
        partial: whether cases that only one side has are left out; without it they are an error.

    Raises:
        DataError: a case that only one side has, or none that both have.
        LabelError: predictions of different structures, no structure in common, a name that is none.
    """
    both = sorted(set(predictions) & set(truths))
    lone = {
        "truth without a prediction": tuple(sorted(set(truths) - set(predictions))),
        "prediction without a truth": tuple(sorted(set(predictions) - set(truths))),
    }
    said = "; ".join(f"{len(ids)} {what}: {_few(ids)}" for what, ids in lone.items() if ids)
    if not both:
        raise DataError("predictions and truths", "must have a case in common, by the names of their files", said)
    if said and not partial:
        raise DataError(
            "predictions and truths",
            "must be of the same cases",
            said,
            "Add what is missing, or give --partial to evaluate the others.",
        )
    known = predictions[both[0]].structures
    for case in both:
        if set(predictions[case].structures) != set(known):
            raise LabelError(
                predictions[case].path,
                f"must be a prediction of the same structures as {predictions[both[0]].path}",
                _few(sorted(set(predictions[case].structures) ^ set(known))) + " in one of them alone",
                "Evaluate predictions of one network at a time.",
            )
    true = ordered(tuple(dict.fromkeys(name for case in both for name in truths[case].structures)))
    common = [name for name in true if name in known]
    if not common:
        raise LabelError(
            "predictions and truths",
            "must have a structure in common, by name",
            f"{_few(known)} in the predictions, {_few(true)} in the truths",
            "--prediction-labels and --truth-labels say what the numbers mean.",
        )
    labels = LabelMap(common)
    if structures:
        labels = LabelMap(labels.select(structures))
    return Pairs(
        {case: (truths[case], predictions[case]) for case in both},
        labels,
        tuple(name for name in true if name not in known),
        tuple(name for name in known if name not in true),
        *lone.values(),
    )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def read_source(source: Source, labels: LabelMap) -> tuple[Label, Grid, int]:
    """The label map of a case in the numbering of `labels`, where it lies, and voxels that several masks claim.

    Of structures whose masks overlap the smaller one by nature keeps the voxel, as in training.

    Raises:
        DataError, GeometryError: a file that cannot be read, masks that do not lie on one grid.
        LabelError: a value that is no whole number or has no name.
    """
    if source.label is None:
        reference = source.image or next(iter(source.masks.values()))
        _grid(reference)
        merged = merge_masks(reference, source.masks, labels)
        return merged.label, merged.grid, sum(merged.overlaps.values())
    grid = _grid(source.label)
    return renumbered(Case(source.case, source.label, source.label), source.labels, labels), grid, 0


def _grid(path: Path) -> Grid:
    try:
        return read_grid(path)
    except GeometryError as error:
        if error.thing != "A grid's affine":
            raise
        fix = "Mend its header: spacings must be above 0."
        raise GeometryError(f"{path}, affine", error.problem, error.came, fix) from error


def read_pair(
    truth: Source, prediction: Source, labels: LabelMap, resample: bool = False
) -> tuple[Label, Label, Grid, tuple[str, ...]]:
    """Truth and prediction of a case on one grid, that grid, and what has to be said of it.

    Args:
        truth: gives the grid.
        prediction: must lie on it.
        labels: the numbering that both come out in.
        resample: whether a prediction that lies elsewhere is brought onto it, each voxel from the nearest.

    Raises:
        GeometryError: shapes or affines differ, and `resample` was not asked for; names both files.
    """
    (true, grid, overlapping), (predicted, location, _) = read_source(truth, labels), read_source(prediction, labels)
    notes = [f"{overlapping} voxels of the truth are in several masks; the smaller structure has them"]
    notes = notes if overlapping else []
    if not grid.matches(location):
        if not resample:
            try:
                grid.require(location, prediction.path, truth.path)
            except GeometryError as error:
                fix = "Bring it there, or give --resample to take each voxel from the nearest of the prediction."
                raise GeometryError(error.thing, error.problem, error.came, fix) from None
        predicted = onto(predicted, location, grid)
        notes.append(f"the prediction was resampled from {location.shape} to {grid.shape}")
    return true, predicted, grid, tuple(notes)


def onto(label: Label, location: Grid, grid: Grid) -> Label:
    """A label map on another grid, each voxel from the nearest; background where there is none.

    >>> onto(np.array([[[1, 2]]], np.uint8), Grid((1, 1, 2), np.eye(4)), Grid((1, 1, 3), np.eye(4))).tolist()
    [[[1, 2, 0]]]
    """
    back = np.linalg.inv(location.affine) @ grid.affine
    return np.asarray(ndimage.affine_transform(label, back, output_shape=grid.shape, order=0, mode="constant", cval=0))
