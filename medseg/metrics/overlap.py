"""Score the overlap of every structure at once, from one confusion matrix for each volume.

Not MONAI's `DiceMetric`: that one gives 0 for a structure that is absent from both sides, and with 118 classes takes
half a minute and gigabytes for a volume. Counting pairs of labels once gives all classes at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medseg.errors import LabelError
from medseg.labels import LabelMap
from medseg.metrics.label_arrays import as_array, case_name, class_indices, loops, on_gpu, require_same_shape

if TYPE_CHECKING:
    import torch

    Array = npt.NDArray[Any] | torch.Tensor
Counts = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
FOUND, MISSED, FALSE_POSITIVE, ABSENT, NOT_ANNOTATED = "found", "missed", "false positive", "absent", "not annotated"
_BLOCK = 1 << 20  # voxels counted at once without numba: their int64 codes fit into a cache


def confusion_matrix(prediction: Array, truth: Array, num_classes: int, case: str = "") -> Counts:
    """Count the voxels with truth `r` and prediction `c`, `(num_classes, num_classes)`.

    Args:
        prediction: class indices, any shape; whole numbers of any type, in RAM or on a GPU.
        truth: class indices, the same shape, on the same grid.
        num_classes: classes, background included.
        case: its id, for errors.

    Raises:
        GeometryError: the shapes differ.
        LabelError: NaN, a fraction, an index below 0 or not below `num_classes`.

    Example:
        >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 1, 0]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    require_same_shape(prediction, truth, case)
    if on_gpu(prediction) and on_gpu(truth):
        return _count_on_gpu(prediction, truth, num_classes, case)
    predicted = class_indices(prediction, num_classes, "prediction", case)
    expected = class_indices(truth, num_classes, "truth", case)
    # NIfTI arrays run along their first axis: flattened in that order they need no copy.
    order = "F" if predicted.flags.f_contiguous and expected.flags.f_contiguous else "C"
    columns, rows = predicted.ravel(order=order), expected.ravel(order=order)  # type: ignore[arg-type]
    counts = np.zeros((num_classes, num_classes), np.int64)
    compiled = loops()
    if compiled is not None:
        compiled.count_pairs(rows, columns, counts)
        return counts
    flat = counts.reshape(-1)
    for start in range(0, columns.size, _BLOCK):
        code = rows[start : start + _BLOCK].astype(np.int64)
        code *= num_classes
        code += columns[start : start + _BLOCK]
        flat += np.bincount(code, minlength=flat.size)
    return counts


def _count_on_gpu(prediction: Any, truth: Any, num_classes: int, case: str) -> Counts:
    import torch

    columns, rows = prediction.reshape(-1), truth.to(prediction.device).reshape(-1)
    for side, values in (("prediction", columns), ("truth", rows)):
        if values.numel():
            # Two numbers cross to RAM, and the checks there find what is wrong; all of them only for an error.
            class_indices(torch.stack([values.min(), values.max()]), num_classes, side, case)
            if values.is_floating_point() and not torch.equal(values, values.round()):
                class_indices(values, num_classes, side, case)
    counts = torch.bincount(rows.long() * num_classes + columns.long(), minlength=num_classes**2)
    return np.asarray(counts.cpu().numpy().reshape(num_classes, num_classes))


def annotated_classes(labels: LabelMap, names: Iterable[str] | None, case: str = "") -> npt.NDArray[np.bool_] | None:
    """Return which classes were annotated in a case, `(classes,)`, the background always; None for all.

    Raises:
        LabelError: an empty list, or a name that `labels` does not hold.

    >>> annotated_classes(LabelMap(["liver", "spleen"]), ["spleen"]).tolist()
    [True, False, True]
    """
    if names is None:
        return None
    structures = list(names)
    if not structures:
        fix = "Exclude the case, or leave the list out if everything was annotated."
        raise LabelError(f"{case_name(case)}, annotated", "the list must name at least one structure", fix=fix)
    mask = np.zeros(len(labels), bool)
    mask[0] = True
    for name in structures:
        mask[labels.index(name)] = True
    return mask


@dataclass(frozen=True)
class Overlap:
    """The overlap of every structure of one case; every array is `(structures,)`, from class 1 on.

    A structure that was not annotated takes no part: all its scores are NaN. Where it was predicted counts as
    background, as in a loss that merges it into the background: that is no false positive, and where the truth has an
    annotated structure there, that one was missed.

    Args:
        intersection: voxels that have it in truth and prediction.
        predicted: voxels that have it in the prediction.
        true: voxels that have it in the truth.
        annotated: whether it was annotated.
    """

    intersection: Counts
    predicted: Counts
    true: Counts
    annotated: npt.NDArray[np.bool_]

    @property
    def dice(self) -> Scores:
        """2 intersection / (predicted + true); NaN where absent from both, 0 where in one alone. Equals F1 of voxels.

        Dice, L. R. (1945). Measures of the amount of ecologic association between species. Ecology 26.
        """
        return self._ratio(2 * self.intersection, self.predicted + self.true)

    f1 = dice

    @property
    def iou(self) -> Scores:
        """Intersection / union; NaN where absent from both. Jaccard, P. (1901)."""
        return self._ratio(self.intersection, self.predicted + self.true - self.intersection)

    @property
    def precision(self) -> Scores:
        """Intersection / predicted; NaN where nothing was predicted."""
        return self._ratio(self.intersection, self.predicted)

    @property
    def recall(self) -> Scores:
        """Intersection / true; NaN where absent from the truth."""
        return self._ratio(self.intersection, self.true)

    @property
    def relative_volume_error(self) -> Scores:
        """(predicted - true) / true: negative where too little was predicted; NaN where absent from the truth."""
        return self._ratio(self.predicted - self.true, self.true)

    @property
    def states(self) -> tuple[str, ...]:
        """For each structure `found` (in both, anywhere), `missed`, `false positive`, `absent` or `not annotated`."""
        names = {(True, True): FOUND, (True, False): MISSED, (False, True): FALSE_POSITIVE, (False, False): ABSENT}
        return tuple(
            names[bool(true), bool(predicted)] if annotated else NOT_ANNOTATED
            for true, predicted, annotated in zip(self.true, self.predicted, self.annotated, strict=True)
        )

    def __add__(self, part: Overlap) -> Overlap:
        """Return the overlap of two parts of a case together, as slices of a scan."""
        return Overlap(
            self.intersection + part.intersection,
            self.predicted + part.predicted,
            self.true + part.true,
            np.asarray(self.annotated | part.annotated),
        )

    def _ratio(self, numerator: Counts, denominator: Counts) -> Scores:
        out = np.full(len(denominator), np.nan)
        return np.asarray(np.divide(numerator, denominator, out=out, where=(denominator > 0) & self.annotated))


def overlap_scores(
    confusion: Counts, annotated: Sequence[bool] | npt.NDArray[np.bool_] | None = None, case: str = ""
) -> Overlap:
    """Return the overlap of every structure from a confusion matrix.

    Args:
        confusion: from `confusion_matrix`.
        annotated: for each class, background included, whether it was annotated; None for all.
        case: its id, for errors.

    Raises:
        LabelError: `annotated` has another length, or the truth holds a structure that was not annotated.

    >>> overlap_scores(np.array([[5, 1, 0], [0, 4, 0], [0, 0, 0]])).dice.round(3).tolist()
    [0.889, nan]
    """
    mask = annotated_array(annotated, len(confusion), case)
    contradicting = np.flatnonzero(confusion.sum(axis=1) * ~mask)
    contradicting = contradicting[contradicting > 0]
    if contradicting.size:
        problem = f"holds label {int(contradicting[0])}, which is not among the annotated structures"
        raise LabelError(f"{case_name(case)}, truth", problem, fix="Add it to their list.")
    return Overlap(
        np.diag(confusion)[1:] * mask[1:],
        confusion.sum(axis=0)[1:] * mask[1:],
        confusion.sum(axis=1)[1:],
        mask[1:],
    )


def annotated_array(
    annotated: Sequence[bool] | npt.NDArray[np.bool_] | None, num_classes: int, case: str = ""
) -> npt.NDArray[np.bool_]:
    """Return for each class whether it was annotated, `(num_classes,)`; all for None.

    Raises:
        LabelError: `annotated` has another length.
    """
    mask = np.ones(num_classes, bool) if annotated is None else np.array(annotated, bool)
    if mask.shape != (num_classes,):
        problem = f"must hold a value for each of {num_classes} classes"
        raise LabelError(f"{case_name(case)}, annotated", problem, f"got shape {mask.shape}")
    return mask


def dice(confusion: Counts) -> Scores:
    """Return the Dice of every structure, `(num_classes - 1,)`; see `Overlap.dice`.

    >>> dice(np.array([[5, 1, 0], [0, 4, 0], [0, 0, 0]])).round(3).tolist()
    [0.889, nan]
    """
    return overlap_scores(confusion).dice


def multilabel_overlap(
    prediction: Array,
    truth: Array,
    annotated: Sequence[bool] | npt.NDArray[np.bool_] | None = None,
    case: str = "",
) -> Overlap:
    """Return the overlap of every channel of two sets of binary masks `(structures, *spatial)`.

    Args:
        prediction: above 0 where a structure is.
        truth: the same shape.
        annotated: as in `overlap_scores`, background included.
        case: its id, for errors.

    Raises:
        GeometryError: the shapes differ.
        LabelError: see `overlap_scores`.
    """
    require_same_shape(prediction, truth, case)
    channels = len(truth)
    counts = np.zeros((3, channels), np.int64)
    for channel in range(channels):
        predicted, true = as_array(prediction[channel]) > 0, as_array(truth[channel]) > 0
        counts[:, channel] = np.count_nonzero(predicted & true), np.count_nonzero(predicted), np.count_nonzero(true)
    mask = annotated_array(annotated, channels + 1, case)
    overlap_scores(np.diag(np.append(0, counts[2])), mask, case)  # checks the truth
    return Overlap(counts[0] * mask[1:], counts[1] * mask[1:], counts[2], mask[1:])


def multilabel_dice(prediction: Array, truth: Array) -> Scores:
    """Return the Dice of every channel of two sets of binary masks `(structures, *spatial)`; NaN if empty in both.

    Raises:
        GeometryError: the shapes differ.
    """
    return multilabel_overlap(prediction, truth).dice


def dice_by_structure(
    prediction: Array, truth: Array, labels: LabelMap, case: str = "", annotated: Iterable[str] | None = None
) -> dict[str, float]:
    """Return the Dice of two label maps by structure; NaN for one absent from both, or not among the `annotated`.

    Raises:
        GeometryError: the shapes differ.
        LabelError: see `confusion_matrix`, `annotated_classes` and `overlap_scores`.

    Example:
        >>> dice_by_structure(np.array([0, 1, 1]), np.array([0, 1, 0]), LabelMap(["liver", "spleen"]))
        {'liver': 0.6666666666666666, 'spleen': nan}
    """
    mask = annotated_classes(labels, annotated, case)
    scores = overlap_scores(confusion_matrix(prediction, truth, len(labels), case), mask, case).dice
    return {name: float(score) for name, score in zip(labels, scores, strict=True)}
