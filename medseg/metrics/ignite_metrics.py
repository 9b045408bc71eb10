"""Ignite metrics over volumes and slices: sums over cases and ranks, NaN where a structure has no value.

Every rank sends its sums and not its cases, so that what is exchanged does not grow with the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
Annotated = npt.NDArray[np.bool_] | None
_STATES = {"present": (FOUND, MISSED), "missed": (MISSED,), "false_positives": (FALSE_POSITIVE,)}


class _CaseMetric(Metric):
    """An Ignite metric whose batches are lists of cases, see `VolumeDice`."""

    def __init__(
        self, labels: LabelMap, output_transform: Callable[..., Any] = lambda output: output, multilabel: bool = False
    ) -> None:
        self.labels = labels
        self.multilabel = multilabel
        super().__init__(output_transform, skip_unrolling=True)  # a list of cases is one update, not one for each

    def iteration_completed(self, engine: Any) -> None:
        """Add an engine's output, with `annotated` of its batch where the output does not have it."""
        output = self._output_transform(engine.state.output)
        if len(output) < 3:
            output = (*output, annotated_of_batch(engine.state.batch, len(output[1])))
        self.update(output)

    def _cases(self, output: Sequence[Any]) -> Iterator[tuple[Any, Any, Annotated]]:
        """Yield prediction, truth and the annotated classes of each case."""
        annotated = output[2] if len(output) > 2 else [None] * len(output[1])
        for prediction, truth, names in zip(output[0], output[1], annotated, strict=True):
            yield prediction, truth, annotated_mask(self.labels, names)

    def _overlap(self, prediction: Any, truth: Any, annotated: Annotated) -> Overlap:
        """Return the overlap of class indices, or with `multilabel` of channels."""
        if self.multilabel:
            return multilabel_overlap(prediction, truth, annotated)
        return overlap_scores(confusion_matrix(prediction, truth, len(self.labels)), annotated)

    def _require_cases(self, cases: int) -> None:
        if not cases:
            raise NotComputableError(f"{type(self).__name__} needs at least one case before it can be computed.")

    def _by_structure(self, values: Any) -> dict[str, Any]:
        """Return values by structure, None for NaN."""
        numbers = [None if value != value else value for value in values.tolist()]
        return dict(zip(self.labels, numbers, strict=True))


class _MeasureMetric(_CaseMetric):
    """Average measures by structure over cases and ranks; subclasses give `measures` and `_measure`."""

    measures: tuple[str, ...] = ("dice",)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all cases."""
        shape = len(self.measures), len(self.labels) - 1
        self._sum = torch.zeros(shape, dtype=torch.float64)
        self._count = torch.zeros(shape, dtype=torch.int64)
        self._states = torch.zeros((len(_STATES) + 1, shape[1]), dtype=torch.int64)
        self._case_count = torch.zeros(1, dtype=torch.int64)

    @reinit__is_reduced
    def update(self, output: Sequence[Any]) -> None:
        """Add the cases of a batch: predictions, truths and, where known, the annotated structures of each."""
        for case in self._cases(output):
            self._add(*self._measure(*case))

    def _measure(self, prediction: Any, truth: Any, annotated: Annotated) -> tuple[Table, Sequence[str]]:
        """Return the measures of a case, `(measures, structures)`, and the state of each structure."""
        overlap = self._overlap(prediction, truth, annotated)
        return overlap.dice[None], overlap.states

    def _add(self, table: Table, states: Sequence[str]) -> None:
        has_value = ~np.isnan(table)
        self._sum += torch.from_numpy(np.where(has_value, table, 0.0))
        self._count += torch.from_numpy(has_value)
        rows = [[state in counted for state in states] for counted in _STATES.values()]
        rows.append([state != NOT_ANNOTATED for state in states])
        self._states += torch.tensor(rows)
        self._case_count += 1

    @sync_all_reduce("_sum", "_count", "_states", "_case_count")
    def compute(self) -> Any:
        """Return the mean of each measure over the structures, each averaged first over the cases that have a value."""
        self._require_cases(int(self._case_count))
        # Ignite restores each rank's own sums afterwards: what `completed` shows must be stored here.
        count, total = self._count.cpu().numpy(), self._sum.cpu().numpy()
        self._means = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        self._reduced = count, self._states.cpu(), int(self._case_count)
        means = {}
        for measure, row in zip(self.measures, self._means, strict=True):
            values = row[~np.isnan(row)]
            means[measure] = float(values.mean()) if len(values) else float("nan")
        return means

    def _store_details(self, engine: Any, name: str, measure: str) -> None:
        """Put the details of one measure on `engine.state.metric_details`."""
        row = self.measures.index(measure)
        counts, states, cases = self._reduced
        details = {
            "by_structure": self._by_structure(self._means[row]),
            "cases": cases,
            "counted": self._by_structure(counts[row]),
        }
        for state, values in zip([*_STATES, "annotated"], states, strict=True):
            details[state] = self._by_structure(values)
        _details_of(engine)[name] = details


class VolumeDice(_MeasureMetric):
    """Mean Dice over structures and cases, as an Ignite metric over full volumes.

    Not MONAI's `MeanDice`, which counts an absent structure as 0. First the mean of each structure over the cases
    where it is present (in truth or prediction), then the mean over the structures. After each epoch
    `engine.state.metric_details[name]` holds, by structure, `by_structure` (its Dice, None if never present),
    `counted` (over how many cases that is), `present` (cases that have it in the truth), `missed`, `false_positives`
    (cases), `annotated` (cases); and `cases`, their number.

    Args:
        labels: the classes.
        output_transform: gives `(predictions, truths)` or `(predictions, truths, annotated)`: lists of
            `(1, *spatial)` class indices, or of `(structures, *spatial)` binary masks with `multilabel`; and for each
            case the names of the annotated structures, or `(classes,)` whether each was annotated; None for all. By
            default `annotated` is that of the engine's batch (`DatasetIndex.items(side, labels)`).
        multilabel: whether structures are independent channels.
    """

    def compute(self) -> float:
        """Return the mean over all structures that were present in any case; NaN without one."""
        return float(super().compute()["dice"])

    def completed(self, engine: Any, name: str) -> None:
        """Put the mean on `engine.state.metrics` and its details beside it."""
        super().completed(engine, name)
        self._store_details(engine, name, "dice")


class ScanDice(VolumeDice):
    """`VolumeDice` of scans whose slices come one by one, in any order: their pixels are counted together first.

    Not `VolumeDice` itself, for which every slice is a case: there a structure of a few pixels, missed in the slice
    where it begins, weighs as much as the rest of the organ. A slice that belongs to no scan is a case of its own.
    The slices of a scan must be on one rank.

    Args:
        labels: the classes.
        output_transform: see `VolumeDice`; a fourth list names the scan of each slice.
        multilabel: whether structures are independent channels.
        key: of an item's scan; where that is empty, its `case` counts.
    """

    def __init__(
        self,
        labels: LabelMap,
        output_transform: Callable[..., Any] = lambda output: output,
        multilabel: bool = False,
        key: str = "scan",
    ) -> None:
        self.key = key
        super().__init__(labels, output_transform, multilabel)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all scans."""
        super().reset()
        self._scans: dict[str, Overlap] = {}

    @reinit__is_reduced
    def update(self, output: Sequence[Any]) -> None:
        """Add slices: predictions, truths, and where known the annotated structures and the scan of each."""
        scans = output[3] if len(output) > 3 else [""] * len(output[1])
        for case, scan in zip(self._cases(output), scans, strict=True):
            overlap = self._overlap(*case)
            name = scan or f"\0{len(self._scans)}"  # no scan is named like this
            self._scans[name] = self._scans[name] + overlap if name in self._scans else overlap

    def iteration_completed(self, engine: Any) -> None:
        """Add an engine's output, with what its batch tells about each slice."""
        output, batch = self._output_transform(engine.state.output), engine.state.batch
        count = len(output[1])
        annotated = output[2] if len(output) > 2 else annotated_of_batch(batch, count)
        self.update((output[0], output[1], annotated, scans_of_batch(batch, count, self.key)))

    def compute(self) -> float:
        """Return the mean over all structures that were present in any scan; NaN without one."""
        scans = dict(self._scans)
        super().reset()
        for overlap in scans.values():
            self._add(overlap.dice[None], overlap.states)
        self._scans = scans
        return super().compute()


class PixelF1(_CaseMetric):
    """F1 of each structure over the pixels of all images together, and its mean over the structures.

    Not the mean of a Dice for each image (`VolumeDice`): on single slices that is 0 or 1 for structures of a few
    pixels, and has no value where there are none. Not scikit-learn's `f1_score(average="macro")` either: a structure
    in neither truth nor prediction has no value here, and is not in the mean. After each epoch
    `engine.state.metric_details[name]` holds `by_structure` and `cases`.

    Args:
        labels: the classes.
        output_transform: see `VolumeDice`.
        multilabel: whether structures are independent channels.
    """

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all images."""
        self._counts = torch.zeros((3, len(self.labels) - 1), dtype=torch.int64)
        self._case_count = torch.zeros(1, dtype=torch.int64)

    @reinit__is_reduced
    def update(self, output: Sequence[Any]) -> None:
        """Add the images of a batch: predictions, truths and, where known, the annotated structures of each."""
        for case in self._cases(output):
            overlap = self._overlap(*case)
            counts = np.stack([overlap.intersection, overlap.predicted, overlap.true * overlap.annotated])
            self._counts += torch.from_numpy(counts.astype(np.int64))
            self._case_count += 1

    @sync_all_reduce("_counts", "_case_count")
    def compute(self) -> float:
        """Return the mean over all structures that are in any image; NaN without one.

        Raises:
            NotComputableError: there was no image.
        """
        self._require_cases(int(self._case_count))
        intersection, predicted, true = self._counts.cpu().double()
        self._scores = 2 * intersection / (predicted + true)  # 0/0 is NaN
        self._reduced_count = int(self._case_count)
        return float(self._scores.nanmean())

    def completed(self, engine: Any, name: str) -> None:
        """Put the mean on `engine.state.metrics` and its details beside it."""
        super().completed(engine, name)
        _details_of(engine)[name] = {"by_structure": self._by_structure(self._scores), "cases": self._reduced_count}


class VolumeScores(_MeasureMetric):
    """Several measures of full volumes at once, distances between surfaces among them, as one Ignite metric.

    `engine.state.metrics` gets the mean of each measure under its own name (`nsd_3mm`), and
    `engine.state.metric_details` the details of each, as `VolumeDice` describes them.

    Args:
        labels: the classes.
        output_transform: see `VolumeDice`; class indices only.
        measures: names from `medseg.metrics.measure_names`; all surface measures share one search.
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
        available = measure_names(tolerances_mm)
        self.tolerances_mm = tuple(tolerances_mm)
        self.spacing = spacing
        self.measures = available if measures is None else tuple(measures)
        for measure in self.measures:
            if measure not in available:
                fix = did_you_mean(measure, available, f"Available are {', '.join(available)}.")
                raise ConfigError(f"measure '{measure}'", "is not one of those that can be computed", fix=fix)
        super().__init__(labels, output_transform)

    def _measure(self, prediction: Any, truth: Any, annotated: Annotated) -> tuple[Table, Sequence[str]]:
        surfaces = not set(self.measures) <= set(OVERLAP)
        spacing = self._spacing(truth) if surfaces else [1.0] * (truth.ndim - 1)
        names = None
        if annotated is not None:
            names = [name for name, is_annotated in zip(self.labels, annotated[1:], strict=True) if is_annotated]
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
            fix = "Pass VolumeScores(spacing=...)."
            raise GeometryError("VolumeScores", "distances in mm need a spacing, but the truth has no affine", fix=fix)
        matrix = np.asarray(affine.detach().cpu(), dtype=np.float64)
        return matrix[:3, :3] if truth.ndim == 4 else np.linalg.norm(matrix[:2, :2], axis=0)

    def completed(self, engine: Any, name: str) -> None:
        """Put each mean on `engine.state.metrics` and its details beside it."""
        super().completed(engine, name)
        for measure in self.measures:
            self._store_details(engine, measure, measure)


def _details_of(engine: Any) -> dict[str, Any]:
    if getattr(engine.state, "metric_details", None) is None:  # MONAI's engines have it, Ignite's have not
        engine.state.metric_details = {}
    details: dict[str, Any] = engine.state.metric_details
    return details


def annotated_of_batch(batch: Any, count: int) -> Sequence[Any]:
    """Return what a batch, collated or a list of items, says was annotated in each of its `count` cases."""
    if isinstance(batch, Mapping):
        annotated = batch.get("annotated")
        return [None] * count if annotated is None else list(annotated)
    return [item.get("annotated") for item in _items(batch, count)] or [None] * count


def scans_of_batch(batch: Any, count: int, key: str = "scan") -> list[str]:
    """Return the scan of each item of a batch, collated or a list of items; without one its case, or nothing."""
    if isinstance(batch, Mapping):
        scans, cases = (batch.get(name) or [""] * count for name in (key, "case"))
        return [str(scan or case) for scan, case in zip(scans, cases, strict=True)]
    return [str(item.get(key) or item.get("case") or "") for item in _items(batch, count)] or [""] * count


def _items(batch: Any, count: int) -> Sequence[Mapping[str, Any]]:
    """Return a batch that is a list of `count` items; nothing for any other batch."""
    is_list = isinstance(batch, Sequence) and len(batch) == count
    return batch if is_list and all(isinstance(item, Mapping) for item in batch) else []


def annotated_mask(labels: LabelMap, annotated: Any) -> Annotated:
    """Return for each class whether it was annotated, from names or from a mask."""
    if annotated is None:
        return None
    if isinstance(annotated, Iterable) and not isinstance(annotated, (torch.Tensor, np.ndarray)):
        names = list(annotated)
        if all(isinstance(name, str) for name in names):
            return annotated_classes(labels, names)
        annotated = np.array(names)
    return np.asarray(torch.as_tensor(annotated).cpu().numpy(), bool)
