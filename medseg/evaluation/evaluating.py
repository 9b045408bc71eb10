"""Predictions against truth: every case in a process of its own, then what is said of them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medseg.data.parallel import run_each
from medseg.errors import DataError, LabelError, MedsegError
from medseg.evaluation.pairs import Pairs, read_pair
from medseg.evaluation.sources import Source
from medseg.evaluation.summary import LEVEL, SAMPLES, case_means, intervals, plain, states, table, weights
from medseg.grid import Grid
from medseg.labels import LabelMap
from medseg.metrics import StructureScores, measure_names, structure_scores

FORM = 1  # of evaluation.json


@dataclass(frozen=True)
class Job:
    """One case to score.

    Args:
        case: its id.
        truth: where the truth lies.
        prediction: where the prediction lies.
        labels: the structures to score.
        tolerances_mm: of NSD.
        resample: see `read_pair`.
    """

    case: str
    truth: Source
    prediction: Source
    labels: LabelMap
    tolerances_mm: tuple[float, ...]
    resample: bool

    @property
    def annotated(self) -> tuple[str, ...]:
        """The structures that somebody looked for in the truth, of those that are scored."""
        return tuple(name for name in self.labels if name in self.truth.structures)


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Args:
        pairs: what was compared.
        measures: their names, in order.
        scores: by case, one row a structure.
        notes: by case, what has to be said of it.
        failed: by case, why it has no scores.
        prediction: where the predictions came from.
        truth: where the truths came from.
        samples: bootstrap samples.
        seed: of the bootstrap.
    """

    pairs: Pairs
    measures: tuple[str, ...]
    scores: Mapping[str, Sequence[StructureScores]]
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    prediction: str = ""
    truth: str = ""
    samples: int = SAMPLES
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """What `evaluation.json` holds: means, structures and cases, the worst first; None where there is no value."""
        names = list(self.pairs.labels)
        drawn = weights(len(self.scores), self.samples, self.seed)
        by_measure = {measure: intervals(table(self.scores, measure), drawn) for measure in self.measures}
        counted = states(self.scores)
        means = case_means(self.scores, self.measures)
        structures = [
            {
                "structure": name,
                **counted[name],
                "measures": {measure: by_measure[measure][0][index]._asdict() for measure in self.measures},
            }
            for index, name in enumerate(names)
        ]
        cases = [
            {
                "case": case,
                "truth": str(self.pairs.cases[case][0].path),
                "prediction": str(self.pairs.cases[case][1].path),
                "notes": list(self.notes.get(case, ())),
                "mean": means[case],
                "structures": [_row(row) for row in rows],
            }
            for case, rows in self.scores.items()
        ]
        found: dict[str, Any] = plain(
            {
                "form": FORM,
                "prediction": self.prediction,
                "truth": self.truth,
                "measures": list(self.measures),
                "bootstrap": {"samples": self.samples, "seed": self.seed, "level": LEVEL, "drawn": "cases"},
                "mean": {measure: by_measure[measure][1]._asdict() for measure in self.measures},
                "structures": sorted(structures, key=lambda one: worst_first(one["measures"]["dice"]["mean"])),
                "cases": sorted(cases, key=lambda one: worst_first(one["mean"]["dice"])),
                "failed": dict(self.failed),
                "not_predicted": list(self.pairs.not_predicted),
                "not_in_truth": list(self.pairs.not_in_truth),
                "without_prediction": list(self.pairs.without_prediction),
                "without_truth": list(self.pairs.without_truth),
            }
        )
        return found


def worst_first(value: float) -> tuple[bool, float]:
    """A key that puts small values first and those that are none last."""
    return bool(np.isnan(value)), value


def _row(row: StructureScores) -> dict[str, Any]:
    found = {key: value for key, value in vars(row).items() if key != "measures"}
    return {**found, **row.measures}


def spacing_of(grid: Grid) -> Any:
    """Give mm along each axis, or the 3x3 part of the affine where the axes are not at right angles."""
    matrix = grid.affine[:3, :3]
    unit = matrix / np.linalg.norm(matrix, axis=0)
    return grid.spacing if np.abs(unit.T @ unit - np.eye(3)).max() < 1e-4 else matrix


def score_case(job: Job) -> tuple[list[StructureScores], tuple[str, ...]]:
    """The scores of one case, and what has to be said of it.

    Raises:
        DataError, GeometryError, LabelError: what is wrong with it, and with which file.
    """
    thing = f"{job.prediction.path} against {job.truth.path}"
    if not job.annotated:
        raise LabelError(thing, "must have an annotated structure among those that are evaluated", "none")
    truth, prediction, grid, notes = read_pair(job.truth, job.prediction, job.labels, job.resample)
    rows = structure_scores(prediction, truth, job.labels, spacing_of(grid), job.tolerances_mm, job.annotated, job.case)
    return rows, notes


def evaluate(
    pairs: Pairs,
    tolerances_mm: Sequence[float] = (1.0, 3.0),
    resample: bool = False,
    workers: int = 0,
    samples: int = SAMPLES,
    seed: int = 0,
    prediction: str | Path = "",
    truth: str | Path = "",
) -> Evaluation:
    """Score every case. One that is broken is listed with what is wrong with it; the others are scored.

    Args:
        pairs: what to compare.
        tolerances_mm: of NSD.
        resample: see `read_pair`.
        workers: processes, see `run_each`.
        samples: bootstrap samples.
        seed: of the bootstrap.
        prediction: where the predictions came from, written along.
        truth: where the truths came from.

    Raises:
        DataError: no case could be scored; MedsegError: a tolerance or a number of samples that is none.
    """
    if samples < 1:
        raise MedsegError("bootstrap samples", "must be 1 or more", str(samples))
    measures = measure_names(tolerances_mm)
    jobs = [
        Job(case, one, other, pairs.labels, tuple(tolerances_mm), resample)
        for case, (one, other) in pairs.cases.items()
    ]
    scores: dict[str, Sequence[StructureScores]] = {}
    notes: dict[str, tuple[str, ...]] = {}
    failed: dict[str, str] = {}
    for job, result in run_each(score_case, jobs, workers, "Evaluating"):
        if isinstance(result, MedsegError):
            failed[job.case] = str(result)
        else:
            scores[job.case], notes[job.case] = result
    if not scores:
        first = next(iter(failed.values()), "")
        raise DataError("evaluation", "needs at least one case that can be scored", f"{len(failed)} that cannot", first)
    in_order = {case: scores[case] for case in pairs.cases if case in scores}
    return Evaluation(
        pairs, measures, in_order, notes, dict(sorted(failed.items())), str(prediction), str(truth), samples, seed
    )
