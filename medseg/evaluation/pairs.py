"""Predictions and truths of the same cases, matched by case id and by the names of structures, never by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.data.datasets import renumber
from medseg.data.masks import merge_masks
from medseg.data.scan_rules import require_codes
from medseg.data.volumes import read_volume
from medseg.errors import DataError, GeometryError, LabelError
from medseg.evaluation.pictures import Picture
from medseg.evaluation.sources import Source, ordered
from medseg.file_names import spelled_as
from medseg.findings import names_of
from medseg.grid import Grid, to_ras
from medseg.labels import LabelMap

Label = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Pairs:
    """Truths with their predictions.

    Args:
        cases: truth and prediction by case id.
        labels: the structures that both sides have.
        not_predicted: structures of the truth that the predictions lack: they are not evaluated.
        not_in_truth: structures of the predictions that no truth has: they count as background.
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
    binarize: float | None = None,
    accept: Sequence[str] = (),
) -> Pairs:
    """Pair predictions with truths.

    Args:
        predictions: by case id.
        truths: by case id.
        structures: names and groups to evaluate; by default all that both sides have.
        partial: whether cases that only one side has are left out; without it they are an error.
        binarize: takes masks that hold more than 0 and 1, see `medseg.data.masks.binary_mask`.
        accept: takes label maps that break a rule, by its code, see `medseg.data.scan_rules`.

    Raises:
        DataError: a case that only one side has, or none that both have.
        LabelError: predictions of different structures, no structure in common, an unknown name.
    """
    predictions = spelled_as(predictions, truths)
    common_cases = sorted(set(predictions) & set(truths))
    without_prediction = tuple(sorted(set(truths) - set(predictions)))
    without_truth = tuple(sorted(set(predictions) - set(truths)))
    unpaired = "; ".join(
        f"{len(cases)} {problem}: {names_of(cases)}"
        for problem, cases in (
            ("truth without a prediction", without_prediction),
            ("prediction without a truth", without_truth),
        )
        if cases
    )
    if not common_cases:
        fix = "The names of the files are the ids of the cases."
        raise DataError("predictions and truths", "they have no case in common", unpaired, fix)
    if unpaired and not partial:
        raise DataError(
            "predictions and truths",
            "they are not of the same cases",
            unpaired,
            "Add the missing ones, or give --partial (in Python partial=True) to evaluate the others.",
        )
    predicted = predictions[common_cases[0]].structures
    for case in common_cases:
        difference = sorted(set(predictions[case].structures) ^ set(predicted))
        if difference:
            raise LabelError(
                predictions[case].location,
                f"its structures differ from those of {predictions[common_cases[0]].location}",
                f"only one has {names_of(difference)}",
                "Evaluate predictions of one network at a time.",
            )
    true = ordered(tuple(dict.fromkeys(name for case in common_cases for name in truths[case].structures)))
    common = [name for name in true if name in predicted]
    if not common:
        raise LabelError(
            "predictions and truths",
            "they have no structure in common, by name",
            f"{names_of(predicted)} in the predictions, {names_of(true)} in the truths",
            "Name the labels with --prediction-labels and --truth-labels.",
        )
    labels = LabelMap(common)
    if structures:
        labels = LabelMap(labels.select(structures))
    options: Any = {"binarize": binarize, "accept": require_codes(accept)}
    return Pairs(
        {case: (replace(truths[case], **options), replace(predictions[case], **options)) for case in common_cases},
        labels,
        tuple(name for name in true if name not in predicted),
        tuple(name for name in predicted if name not in true),
        without_prediction,
        without_truth,
    )


def by_scan(pairs: Pairs) -> Pairs:
    """Return pairs of 2D slices as pairs of their scans; those of volumes as they are.

    Raises:
        DataError: volumes on one side, and slices on the other.
    """
    scans: dict[str, list[tuple[int, Source, Source]]] = {}
    for truth, prediction in pairs.cases.values():
        if truth.slices or prediction.slices:
            truth, prediction = _as_slice(truth), _as_slice(prediction)
        if bool(truth.slices) != bool(prediction.slices):
            problem = "one holds 2D slices and the other a volume"
            raise DataError(f"{prediction.location} against {truth.location}", problem)
        if not truth.slices:
            return pairs
        scan, number = truth.slices[0].scan
        scans.setdefault(scan, []).append((number, truth, prediction))
    cases = {}
    for scan, slices in scans.items():
        slices.sort(key=lambda row: (row[0], row[1].case))
        cases[scan] = _scan(scan, [row[1] for row in slices]), _scan(scan, [row[2] for row in slices])
    return replace(pairs, cases=cases)


def _as_slice(source: Source) -> Source:
    """Return an array of one slice as a picture, to be compared with one."""
    if source.array is None or source.labels is None or source.array.shape[2] != 1:
        return source
    label = renumber(source.array, source.labels, source.labels, source.location, source.binarize)[..., 0]
    masks = {name: label == source.labels.index(name) for name in source.labels}
    return replace(source, slices=(Picture.of_arrays(source.case, masks),))


def _scan(scan: str, slices: Sequence[Source]) -> Source:
    structures = tuple(dict.fromkeys(name for source in slices for name in source.structures))
    parts = tuple(
        replace(picture, case=replace(picture.case, binarize=source.binarize))
        for source in slices
        for picture in source.slices
    )
    return Source(scan, Path(slices[0].location).parent, structures=structures, slices=parts)


def read_source(source: Source, labels: LabelMap) -> tuple[Label, Grid | None, int]:
    """Read the label map of a case in the numbering of `labels`, its grid, and the voxels that several masks claim.

    Where masks overlap, the structure that is smaller by nature keeps the voxel, as in training.

    Raises:
        DataError, GeometryError: a file that cannot be read, masks that do not lie on one grid.
        LabelError: a value that is no whole number or has no name.
    """
    if source.array is not None and source.labels is not None:
        return renumber(source.array, source.labels, labels, source.location, source.binarize), source.grid, 0
    if source.label is None:
        reference = source.image or next(iter(source.masks.values()))
        merged = merge_masks(reference, source.masks, labels, (), source.binarize, source.accept)
        return merged.label, merged.grid, sum(merged.overlaps.values())
    if source.labels is None:
        raise LabelError(source.label, "its labels have no names")
    values, grid = read_volume(source.label, source.accept)
    thing = f"{source.label}, case {source.case}"
    return renumber(values, source.labels, labels, thing, source.binarize), grid, 0


def read_pair(
    truth: Source, prediction: Source, labels: LabelMap, resample: bool = False
) -> tuple[Label, Label, Grid | None, tuple[str, ...]]:
    """Read truth and prediction of a case on one grid.

    Args:
        truth: gives the grid.
        prediction: must lie on it, if perhaps with its axes turned or flipped.
        labels: the numbering of both results.
        resample: whether a prediction on another grid is resampled, each voxel from the nearest.

    Returns:
        Truth, prediction, their grid (None for arrays of unknown spacing), and remarks on the case.

    Raises:
        GeometryError: shapes or affines differ and `resample` is not set; names both.
    """
    true, grid, overlapping = read_source(truth, labels)
    predicted, location, _ = read_source(prediction, labels)
    notes = [f"{overlapping} voxels of the truth are in several masks; the smaller structure has them"]
    notes = notes if overlapping else []
    if grid is None or location is None:
        grid = grid or location
        if true.shape != predicted.shape:
            problem = f"the prediction must have the truth's shape {true.shape}"
            raise GeometryError(prediction.location, problem, f"got {predicted.shape}")
    elif not grid.matches(location):
        turned = to_ras([], grid)[1].matches(to_ras([], location)[1])
        if not (turned or resample):
            try:
                grid.require(location, prediction.location, truth.location)
            except GeometryError as error:
                fix = "Resample it, or give --resample (resample=True) to take the nearest voxel of the prediction."
                axes = f"its axes are {location.axes}, the truth's {grid.axes}" if location.axes != grid.axes else ""
                raise GeometryError(error.thing, error.problem, error.came or axes, fix) from None
        predicted = resample_labels(predicted, location, grid)
        notes.append(
            f"the prediction was turned from axes {location.axes} to {grid.axes}, voxel by voxel"
            if turned
            else f"the prediction was resampled from {location.shape} to {grid.shape}"
        )
    return true, predicted, grid, tuple(notes)


def resample_labels(label: Label, location: Grid, grid: Grid) -> Label:
    """Resample a label map to another grid, each voxel from the nearest; background outside of it.

    >>> source, target = Grid((1, 1, 2), np.eye(4)), Grid((1, 1, 3), np.eye(4))
    >>> resample_labels(np.array([[[1, 2]]], np.uint8), source, target).tolist()
    [[[1, 2, 0]]]
    """
    to_source = np.linalg.inv(location.affine) @ grid.affine
    return np.asarray(
        ndimage.affine_transform(label, to_source, output_shape=grid.shape, order=0, mode="constant", cval=0)
    )
