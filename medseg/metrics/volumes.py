"""Ignite metrics over whole volumes: sums over cases and ranks, NaN where there is nothing to say.

Every rank sends its sums and not its cases, so that what is exchanged does not grow with the data set.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce

from medseg.errors import ConfigError, GeometryError, did_you_mean
from medseg.labels import LabelMap
from medseg.metrics.overlap import (
    FALSE_POSITIVE,
    FOUND,
    MISSED,
    NOT_ANNOTATED,
    Overlap,
    annotated_classes,
    confusion_matrix,
    multilabel_overlap,
    overlap_scores,
)
from medseg.metrics.structures import OVERLAP, TOLERANCES_MM, measure_names, structure_scores

Table = npt.NDArray[np.float64]
_STATES = {"present": (FOUND, MISSED), "missed": (MISSED,), "false_positives": (FALSE_POSITIVE,)}


class _Volumes(Metric):
    """Sums of measures by structure, over cases and ranks; `measures` and `_score` make a metric of it."""

    measures: tuple[str, ...]
    labels: LabelMap

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all cases."""
        shape = len(self.measures), len(self.labels) - 1
        self._sum = torch.zeros(shape, dtype=torch.float64)
        self._count = torch.zeros(shape, dtype=torch.int64)
        self._states = torch.zeros((len(_STATES) + 1, shape[1]), dtype=torch.int64)
        self._cases = torch.zeros(1, dtype=torch.int64)

    @reinit__is_reduced
    def update(self, output: Sequence[Any]) -> None:
        """Take in the cases of one batch: predictions, truths and, where it is known, who is annotated in each."""
        annotated = output[2] if len(output) > 2 else [None] * len(output[1])
        for prediction, truth, names in zip(output[0], output[1], annotated, strict=True):
            self._add(*self._score(prediction, truth, annotated_mask(self.labels, names)))

    def _add(self, table: Table, states: Sequence[str]) -> None:
        """One case more: its measures, `(measures, structures)`, and the state of each structure."""
        known = ~np.isnan(table)
        self._sum += torch.from_numpy(np.where(known, table, 0.0))
        self._count += torch.from_numpy(known)
        rows = [[state in meant for state in states] for meant in _STATES.values()]
        rows.append([state != NOT_ANNOTATED for state in states])
        self._states += torch.tensor(rows)
        self._cases += 1

    def iteration_completed(self, engine: Any) -> None:
        """Take in what an engine made of a batch, with `annotated` of the batch where the output does not have it."""
        output = self._output_transform(engine.state.output)
        self.update(output if len(output) > 2 else (*output, annotated_of_batch(engine.state.batch, len(output[1]))))

    @abstractmethod
    def _score(
        self, prediction: Any, truth: Any, annotated: npt.NDArray[np.bool_] | None
    ) -> tuple[Table, Sequence[str]]:
        """The measures of one case, `(measures, structures)`, and the state of each structure."""

    @sync_all_reduce("_sum", "_count", "_states", "_cases")
    def compute(self) -> Any:
        """The mean of each measure over the structures; of each structure first over the cases that have a value."""
        if not int(self._cases):
            raise NotComputableError(f"{type(self).__name__} needs at least one case before it can be computed.")
        count = self._count.cpu().numpy()
        total = self._sum.cpu().numpy()
        self._means = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        self._found = self._count.cpu(), self._states.cpu(), int(self._cases)
        known = ~np.isnan(self._means)
        return {
            measure: float(row[held].mean()) if held.any() else float("nan")
            for measure, row, held in zip(self.measures, self._means, known, strict=True)
        }

    def _details(self, measure: str) -> dict[str, Any]:
        """By structure: its mean (None without a value), and over how many cases that is."""
        row = self.measures.index(measure)
        counts, states, cases = self._found
        means = [None if np.isnan(mean) else float(mean) for mean in self._means[row]]
        by_state = {
            name: dict(zip(self.labels, one.tolist(), strict=True))
            for name, one in zip([*_STATES, "annotated"], states, strict=True)
        }
        return {
            "by_structure": dict(zip(self.labels, means, strict=True)),
            "cases": cases,
            "counted": dict(zip(self.labels, counts[row].tolist(), strict=True)),
            **by_state,
        }

    def _show(self, engine: Any, name: str, measure: str) -> None:
        """Put the details of one measure where handlers look for them."""
        details = getattr(engine.state, "metric_details", None)
        if details is None:
            details = {}
            engine.state.metric_details = details
        details[name] = self._details(measure)


class VolumeDice(_Volumes):
    """Mean Dice over structures and cases, as an Ignite metric over whole volumes.

    First the mean of each structure over the cases where it is present (in truth or prediction), then the mean over
    the structures. After each epoch `engine.state.metric_details[name]` holds, by structure, `by_structure` (its
    Dice, None where never present), `counted` (over how many cases that is), `present` (cases that have it in the
    truth), `missed`, `false_positives` (cases), `annotated` (cases); and `cases`, how many there were.

    Args:
        labels: the classes.
        output_transform: gives `(predictions, truths)` or `(predictions, truths, annotated)`: lists of
            `(1, *spatial)` class indices, or of `(structures, *spatial)` binary masks with `multilabel`; and for each
            case the names of the structures that were annotated, or `(classes,)` whether each was; None for all. By
            default `annotated` is what the engine's batch says under that key (`DatasetIndex.items(side, labels)`).
        multilabel: whether structures are channels of their own.
    """

    measures = ("dice",)

    def __init__(
        self, labels: LabelMap, output_transform: Callable[..., Any] = lambda output: output, multilabel: bool = False
    ) -> None:
        self.labels, self.multilabel = labels, multilabel
        super().__init__(output_transform, skip_unrolling=True)  # cases come as lists, and whole

    def _score(
        self, prediction: Any, truth: Any, annotated: npt.NDArray[np.bool_] | None
    ) -> tuple[Table, Sequence[str]]:
        found = overlap_of_case(prediction, truth, self.labels, annotated, self.multilabel)
        return found.dice[None], found.states

    def compute(self) -> float:
        """The mean over all structures that were present anywhere; NaN where none was."""
        return float(super().compute()["dice"])

    def completed(self, engine: Any, name: str) -> None:
        """Put the mean and the details where handlers look for them."""
        super().completed(engine, name)
        self._show(engine, name, "dice")


class VolumeScores(_Volumes):
    """Several measures of whole volumes at once, distances between surfaces among them, as one Ignite metric.

    `engine.state.metrics` gets the mean of each measure under its own name (`nsd_3mm`), and
    `engine.state.metric_details` the details of each, as `VolumeDice` describes them.

    Args:
        labels: the classes.
        output_transform: see `VolumeDice`; class indices only.
        measures: names of `medseg.metrics.measure_names`; the surface ones cost a search for all of them together.
        tolerances_mm: of NSD.
        spacing: mm along each axis; None to take it from the affine of the truth (MONAI's MetaTensor).

    Raises:
        ConfigError: a measure that does not exist.
    """

    def __init__(
        self,
        labels: LabelMap,
        output_transform: Callable[..., Any] = lambda output: output,
        measures: Sequence[str] | None = None,
        tolerances_mm: Sequence[float] = TOLERANCES_MM,
        spacing: Sequence[float] | None = None,
    ) -> None:
        known = measure_names(tolerances_mm)
        self.labels, self.tolerances_mm, self.spacing = labels, tuple(tolerances_mm), spacing
        self.measures = known if measures is None else tuple(measures)
        for measure in self.measures:
            if measure not in known:
                fix = did_you_mean(measure, known, f"There are {', '.join(known)}.")
                raise ConfigError(f"measure '{measure}'", "must be one that is computed", "none of that name", fix)
        super().__init__(output_transform, skip_unrolling=True)  # cases come as lists, and whole

    def _score(
        self, prediction: Any, truth: Any, annotated: npt.NDArray[np.bool_] | None
    ) -> tuple[Table, Sequence[str]]:
        surfaces = not set(self.measures) <= set(OVERLAP)
        spacing = self._spacing(truth) if surfaces else [1.0] * (truth.ndim - 1)
        names = (
            None if annotated is None else [name for name, held in zip(self.labels, annotated[1:], strict=True) if held]
        )
        rows = structure_scores(
            prediction[0], truth[0], self.labels, spacing, self.tolerances_mm, names, surfaces=surfaces
        )
        table = np.array([[row.measures[measure] for row in rows] for measure in self.measures])
        return table, [row.state for row in rows]

    def _spacing(self, truth: Any) -> Any:
        if self.spacing is not None:
            return self.spacing
        affine = getattr(truth, "affine", None)
        if affine is None:
            raise GeometryError(
                "distances in mm", "need a spacing", "a truth without an affine", "Give the metric a spacing."
            )
        matrix = np.asarray(affine.detach().cpu(), dtype=np.float64)
        return matrix[:3, :3] if truth.ndim == 4 else np.linalg.norm(matrix[:2, :2], axis=0)

    def completed(self, engine: Any, name: str) -> None:
        """Put each mean and its details where handlers look for them."""
        super().completed(engine, name)
        for measure in self.measures:
            self._show(engine, measure, measure)


def overlap_of_case(
    prediction: Any, truth: Any, labels: LabelMap, annotated: npt.NDArray[np.bool_] | None, multilabel: bool
) -> Overlap:
    """The overlap of one case: of class indices, or of channels where structures may overlap."""
    if multilabel:
        return multilabel_overlap(prediction, truth, annotated)
    return overlap_scores(confusion_matrix(prediction, truth, len(labels)), annotated)


def annotated_of_batch(batch: Any, cases: int) -> Sequence[Any]:
    """What a batch, collated or a list of items, says of who was annotated in each of its cases."""
    if isinstance(batch, Mapping):
        said = batch.get("annotated")
        return [None] * cases if said is None else list(said)
    if isinstance(batch, Sequence) and len(batch) == cases and all(isinstance(item, Mapping) for item in batch):
        return [item.get("annotated") for item in batch]
    return [None] * cases


def annotated_mask(labels: LabelMap, given: Any) -> npt.NDArray[np.bool_] | None:
    """For each class whether it was annotated, from names or from what says so already."""
    if given is None:
        return None
    if isinstance(given, Iterable) and not isinstance(given, (torch.Tensor, np.ndarray)):
        names = list(given)
        if all(isinstance(name, str) for name in names):
            return annotated_classes(labels, names)
        given = np.array(names)
    return np.asarray(torch.as_tensor(given).cpu().numpy(), bool)
