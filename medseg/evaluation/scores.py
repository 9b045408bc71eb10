"""Scores of predictions against the truth: of arrays, images, files or folders."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.data.case_jobs import run_each
from medseg.errors import DataError, LabelError, MedsegError
from medseg.evaluation.bootstrap import SAMPLES
from medseg.evaluation.pairs import Pairs, by_scan, match, read_pair
from medseg.evaluation.pictures import picture_measures, score_scan
from medseg.evaluation.results import Evaluation
from medseg.evaluation.sources import Source, file_source, find_sources, memory_source, read_names
from medseg.file_names import stem
from medseg.grid import Grid
from medseg.labels import LabelMap
from medseg.metrics import GITractScores, StructureScores, measure_names, structure_scores

_TOLERANCES_MM = (1.0, 3.0)
_MAX_UNNAMED = 255  # label values that are given names; with more, it is hardly a label map


def evaluate(
    prediction: Any,
    truth: Any,
    labels: LabelMap | Sequence[str] | Mapping[str, str] | str | Path | None = None,
    *,
    structures: Sequence[str] = (),
    spacing: Sequence[float] | None = None,
    tolerances_mm: Sequence[float] = _TOLERANCES_MM,
    resample: bool = False,
    partial: bool = False,
    binarize: float | None = None,
    accept: Sequence[str] = (),
    workers: int = 0,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Evaluate predictions against the truth.

    Args:
        prediction: a folder of label maps, see `find_sources`; a file; an object in memory, see `memory_source`; or a
            dictionary of such objects by case id.
        truth: the same of the truth.
        labels: what the label values mean on both sides: a `LabelMap`, the structures in order from 1 on, a
            dictionary of names by value, or what `read_names` takes. Files that bring names need none; arrays without
            names are compared value by value.
        structures: names and groups to evaluate; by default all that both sides have.
        spacing: mm along each axis, for arrays without an affine. Without it they get no distances and no volumes.
        tolerances_mm: of NSD.
        resample: whether a prediction on another grid is resampled to the truth's.
        partial: whether cases that only one side has are left out; without it they are an error.
        binarize: takes masks that hold more than 0 and 1, see `medseg.data.masks.binary_mask`.
        accept: takes label maps that break a rule, by its code, see `medseg.data.scan_rules`.
        workers: processes, see `run_each`.
        samples: bootstrap samples.
        seed: of the bootstrap.

    Raises:
        DataError, GeometryError, LabelError: see `match` and `evaluate_pairs`.

    Example:
        >>> truth = np.zeros((4, 4, 4), int)
        >>> truth[1:3] = 1
        >>> evaluate(truth, truth, ["liver"], spacing=(1.0, 1.0, 3.0)).mean("dice")
        1.0
    """
    names = as_label_map(labels)
    predictions = _sources(prediction, names, spacing, "prediction")
    truths = _sources(truth, names, spacing, "truth")
    if not _has_cases(prediction) and not _has_cases(truth):
        # Two single images have no case ids: they belong together whatever their files are called.
        predictions = dict(zip(truths, predictions.values(), strict=True))
    predictions, truths = _name_values(predictions, truths)
    pairs = match(predictions, truths, structures, partial, binarize, accept)
    origins = [str(side) if isinstance(side, (str, Path)) else "" for side in (prediction, truth)]
    return evaluate_pairs(pairs, tolerances_mm, resample, workers, samples, seed, *origins)


def as_label_map(labels: LabelMap | Sequence[str] | Mapping[str, str] | str | Path | None) -> LabelMap | None:
    """Return a label map from the forms in which it can be given; None stays None.

    >>> as_label_map(["liver", "spleen"]).to_dict()
    {'0': 'background', '1': 'liver', '2': 'spleen'}
    """
    if labels is None or isinstance(labels, LabelMap):
        return labels
    if isinstance(labels, (str, Path)):
        return read_names(labels)
    if isinstance(labels, Mapping):
        return LabelMap.from_dict({str(value): name for value, name in labels.items()}, gaps=True)
    return LabelMap(list(labels))


def _has_cases(side: Any) -> bool:
    """Return whether it holds cases by id, and is not a single image."""
    return isinstance(side, Mapping) or (isinstance(side, (str, Path)) and not _is_image(Path(side)))


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix != ".json"


def _sources(
    side: Any, labels: LabelMap | None, spacing: Sequence[float] | None, description: str
) -> dict[str, Source]:
    if isinstance(side, (str, Path)):
        path = Path(side)
        return {stem(path): file_source(stem(path), path, labels)} if _is_image(path) else find_sources(path, labels)
    if isinstance(side, Mapping):
        return {
            str(case): memory_source(image, labels, spacing, f"{description} {case}") for case, image in side.items()
        }
    return {description: memory_source(side, labels, spacing, description)}


def _name_values(*sides: Mapping[str, Source]) -> list[dict[str, Source]]:
    """Give label values without names one of their own, the same on both sides.

    Raises:
        LabelError: only some of the label maps bring names, or there are too many values for a label map.
    """
    sources = [source for side in sides for source in side.values()]
    unnamed = [source for source in sources if source.array is not None and source.labels is None]
    if not unnamed:
        return [dict(side) for side in sides]
    fix = "Give labels=, for example a LabelMap or a list of the structures' names."
    if len(unnamed) < len(sources):
        raise LabelError(unnamed[0].location, "its labels have no names, and those of the other side have", fix=fix)
    highest = max(float(source.array.max()) for source in unnamed if source.array is not None)
    if not highest <= _MAX_UNNAMED:  # NaN fails, too
        raise LabelError("labels", f"values above {_MAX_UNNAMED} need names", f"got {highest:g}", fix)
    labels = LabelMap([f"label_{value}" for value in range(1, max(int(highest), 1) + 1)])
    return [
        {case: replace(source, labels=labels, structures=labels.structures) for case, source in side.items()}
        for side in sides
    ]


def score_case(
    case: tuple[str, tuple[Source, Source]], labels: LabelMap, tolerances_mm: Sequence[float], resample: bool
) -> tuple[list[StructureScores], tuple[str, ...], GITractScores | None]:
    """Score one case; of slices, see `score_scan`.

    Args:
        case: its id, its truth and its prediction.
        labels: the structures to score.
        tolerances_mm: of NSD.
        resample: see `read_pair`.

    Returns:
        One row a structure, remarks on the case, and of a scan of the GI tract its part in the competition's score.

    Raises:
        DataError, GeometryError, LabelError: what is wrong with it, and with which file.
    """
    id, (truth, prediction) = case
    if truth.slices:
        return score_scan(truth.slices, prediction.slices, labels, id)
    annotated = tuple(name for name in labels if name in truth.structures)
    if not annotated:
        thing = f"{prediction.location} against {truth.location}"
        raise LabelError(thing, "none of the structures to evaluate is annotated in the truth")
    true, predicted, grid, notes = read_pair(truth, prediction, labels, resample)
    spacing = spacing_of(grid) if grid is not None else (1.0, 1.0, 1.0)
    rows = structure_scores(predicted, true, labels, spacing, tolerances_mm, annotated, id, surfaces=grid is not None)
    return (rows if grid is not None else [_without_mm(row, tolerances_mm) for row in rows]), notes, None


def _without_mm(row: StructureScores, tolerances_mm: Sequence[float]) -> StructureScores:
    """Return the row with NaN for everything that needs the size of a voxel."""
    nan = float("nan")
    measures = {name: row.measures.get(name, nan) for name in measure_names(tolerances_mm)}
    return replace(row, truth_ml=nan, predicted_ml=nan, measures=measures)


def spacing_of(grid: Grid) -> Any:
    """Return mm along each axis, or the 3x3 part of the affine where the axes are not at right angles."""
    matrix = grid.affine[:3, :3]
    unit = matrix / np.linalg.norm(matrix, axis=0)
    return grid.spacing if np.abs(unit.T @ unit - np.eye(3)).max() < 1e-4 else matrix


def evaluate_pairs(
    pairs: Pairs,
    tolerances_mm: Sequence[float] = _TOLERANCES_MM,
    resample: bool = False,
    workers: int = 0,
    samples: int = SAMPLES,
    seed: int = 0,
    prediction: str | Path = "",
    truth: str | Path = "",
) -> Evaluation:
    """Score every case. A broken one is listed with what is wrong with it; the others are scored.

    Slices are scored scan by scan, without distances in mm.

    Args:
        pairs: what to compare, see `match`.
        tolerances_mm: of NSD.
        resample: see `read_pair`.
        workers: processes, see `run_each`.
        samples: bootstrap samples.
        seed: of the bootstrap.
        prediction: where the predictions came from, for the record.
        truth: where the truths came from, for the record.

    Raises:
        DataError: no case could be scored; if there is only one, its own error.
        MedsegError: a bad tolerance or number of samples.
    """
    if samples < 1:
        raise MedsegError("bootstrap samples", "there must be 1 or more", f"got {samples}")
    pairs = by_scan(pairs)
    flat = any(truth.slices for truth, _ in pairs.cases.values())
    if flat and resample:
        raise MedsegError("resample", "pictures are not resampled: each mask must have the size of its image")
    measures = picture_measures(pairs.labels) if flat else measure_names(tolerances_mm)
    scores: dict[str, Sequence[StructureScores]] = {}
    notes: dict[str, tuple[str, ...]] = {}
    failed: dict[str, str] = {}
    scans: dict[str, GITractScores] = {}
    score = functools.partial(score_case, labels=pairs.labels, tolerances_mm=tuple(tolerances_mm), resample=resample)
    for (case, _), result in run_each(score, list(pairs.cases.items()), workers, "Evaluating"):
        if isinstance(result, MedsegError):
            if len(pairs.cases) == 1:
                raise result
            failed[case] = str(result)
        else:
            scores[case], notes[case], part = result
            if part is not None:
                scans[case] = part
    if not scores:
        reason = next(iter(failed.values()), "")
        raise DataError("evaluation", "no case could be scored", f"{len(failed)} failed", reason)
    in_order = {case: scores[case] for case in pairs.cases if case in scores}
    failures, origins = dict(sorted(failed.items())), (str(prediction), str(truth))
    return Evaluation(pairs, measures, in_order, notes, failures, *origins, samples, seed, tuple(scans.values()))
