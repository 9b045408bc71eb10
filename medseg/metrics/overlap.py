"""Dice and its kin for every structure at once, from one confusion matrix for each volume.

Not MONAI's `DiceMetric`: that one gives 0 for a structure that is absent from both sides, and with 118 classes
takes half a minute and gigabytes for a volume. Counting pairs once gives all classes at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medseg.errors import LabelError
from medseg.labels import LabelMap
from medseg.metrics.kernels import as_array, class_indices, kernels, name_of, on_gpu, same_shape

if TYPE_CHECKING:
    import torch

    Array = npt.NDArray[Any] | torch.Tensor
Counts = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
FOUND, MISSED, FALSE_POSITIVE, ABSENT, NOT_ANNOTATED = "found", "missed", "false positive", "absent", "not annotated"
_BLOCK = 1 << 20  # voxels counted together where nothing is compiled


def confusion_matrix(prediction: Array, truth: Array, num_classes: int, case: str = "") -> Counts:
    """How many voxels have truth `r` and prediction `c`, `(num_classes, num_classes)`.

    Args:
        prediction: class indices, any shape; whole numbers of any type, in RAM or on a GPU.
        truth: class indices, the same shape, on the same grid.
        num_classes: classes, background included.
        case: its id, for errors.

    Raises:
        GeometryError: shapes that differ.
        LabelError: NaN, a broken number, an index below 0 or not below `num_classes`.

    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 1, 0]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    same_shape(prediction, truth, case)
    if on_gpu(prediction) and on_gpu(truth):
        return _counted_by_torch(prediction, truth, num_classes, case)
    first = class_indices(prediction, num_classes, "prediction", case)
    second = class_indices(truth, num_classes, "truth", case)
    order = "F" if first.flags.f_contiguous and second.flags.f_contiguous else "C"
    one, other = first.ravel(order=order), second.ravel(order=order)  # type: ignore[arg-type]
    counts = np.zeros((num_classes, num_classes), np.int64)
    compiled = kernels()
    if compiled is not None:
        compiled.count_pairs(other, one, counts)
        return counts
    flat = counts.reshape(-1)
    for start in range(0, one.size, _BLOCK):
        pair = other[start : start + _BLOCK].astype(np.int64)
        pair *= num_classes
        pair += one[start : start + _BLOCK]
        flat += np.bincount(pair, minlength=flat.size)
    return counts


def _counted_by_torch(prediction: Any, truth: Any, num_classes: int, case: str) -> Counts:
    import torch

    first, second = prediction.reshape(-1), truth.to(prediction.device).reshape(-1)
    for side, values in (("prediction", first), ("truth", second)):
        if values.numel():  # what is wrong with it, if anything, is said where its few values lie in RAM
            class_indices(torch.stack([values.min(), values.max()]), num_classes, side, case)
            if values.is_floating_point() and not torch.equal(values, values.round()):
                class_indices(values, num_classes, side, case)
    counts = torch.bincount(second.long() * num_classes + first.long(), minlength=num_classes**2)
    return np.asarray(counts.cpu().numpy().reshape(num_classes, num_classes))


def annotated_classes(labels: LabelMap, names: Iterable[str] | None, case: str = "") -> npt.NDArray[np.bool_] | None:
    """Which classes somebody looked for in a case, `(classes,)`, the background among them; None for all.

    Raises:
        LabelError: an empty list, or a name that `labels` does not hold.

    >>> annotated_classes(LabelMap(["liver", "spleen"]), ["spleen"]).tolist()
    [True, False, True]
    """
    if names is None:
        return None
    wanted = list(names)
    if not wanted:
        raise LabelError(
            f"{name_of(case)}, annotated",
            "must name at least one structure",
            "an empty list",
            "Leave the case out, or leave the list out where everything was annotated.",
        )
    held = np.zeros(len(labels), bool)
    held[0] = True
    for name in wanted:
        held[labels.index(name)] = True
    return held


@dataclass(frozen=True)
class Overlap:
    """What overlap says of every structure of one case; every array is `(structures,)`, from class 1 on.

    A structure that was not annotated takes no part: all its figures are NaN. What was predicted as it counts as
    background, as in a loss that merges it into the background: it is nobody's false positive, and where the truth
    has an annotated structure there, that one was missed.

    Args:
        both: voxels that have it in truth and prediction.
        predicted: voxels that have it in the prediction.
        true: voxels that have it in the truth.
        annotated: whether somebody looked for it.
    """

    both: Counts
    predicted: Counts
    true: Counts
    annotated: npt.NDArray[np.bool_]

    @property
    def dice(self) -> Scores:
        """2 both / (predicted + true); NaN where absent from both, 0 where in one alone. F1 of voxels is the same.

        Dice, L. R. (1945). Measures of the amount of ecologic association between species. Ecology 26.
        """
        return self._ratio(2 * self.both, self.predicted + self.true)

    f1 = dice

    @property
    def iou(self) -> Scores:
        """Both / either; NaN where absent from both. Jaccard, P. (1901)."""
        return self._ratio(self.both, self.predicted + self.true - self.both)

    @property
    def precision(self) -> Scores:
        """Both / predicted; NaN where nothing was predicted."""
        return self._ratio(self.both, self.predicted)

    @property
    def recall(self) -> Scores:
        """Both / true; NaN where the truth has none."""
        return self._ratio(self.both, self.true)

    @property
    def relative_volume_error(self) -> Scores:
        """(predicted - true) / true: below 0 where too little was predicted; NaN where the truth has none."""
        return self._ratio(self.predicted - self.true, self.true)

    @property
    def states(self) -> tuple[str, ...]:
        """Of each structure `found` (in both, wherever), `missed`, `false positive`, `absent` or `not annotated`."""
        said = {(True, True): FOUND, (True, False): MISSED, (False, True): FALSE_POSITIVE, (False, False): ABSENT}
        return tuple(
            said[bool(true), bool(predicted)] if annotated else NOT_ANNOTATED
            for true, predicted, annotated in zip(self.true, self.predicted, self.annotated, strict=True)
        )

    def _ratio(self, part: Counts, whole: Counts) -> Scores:
        out = np.full(len(whole), np.nan)
        return np.asarray(np.divide(part, whole, out=out, where=(whole > 0) & self.annotated))


def overlap_scores(
    confusion: Counts, annotated: Sequence[bool] | npt.NDArray[np.bool_] | None = None, case: str = ""
) -> Overlap:
    """The overlap of every structure from a confusion matrix.

    Args:
        confusion: as `confusion_matrix` gives it.
        annotated: for each class, background included, whether somebody looked for it; None for all.
        case: its id, for errors.

    Raises:
        LabelError: `annotated` has another length, or the truth holds a structure that it says nobody annotated.

    >>> overlap_scores(np.array([[5, 1, 0], [0, 4, 0], [0, 0, 0]])).dice.round(3).tolist()
    [0.889, nan]
    """
    held = np.ones(len(confusion), bool) if annotated is None else np.array(annotated, bool)
    if held.shape != (len(confusion),):
        thing = f"{name_of(case)}, annotated"
        raise LabelError(thing, f"must say so of each of {len(confusion)} classes", f"shape {held.shape}")
    strange = np.flatnonzero(confusion.sum(axis=1) * ~held)
    strange = strange[strange > 0]
    if strange.size:
        raise LabelError(
            f"{name_of(case)}, truth",
            "must not hold a structure that was not annotated",
            f"label {int(strange[0])}",
            "Add it to the list of the annotated ones.",
        )
    return Overlap(
        np.diag(confusion)[1:] * held[1:],
        confusion.sum(axis=0)[1:] * held[1:],
        confusion.sum(axis=1)[1:],
        held[1:],
    )


def dice(confusion: Counts) -> Scores:
    """Dice of every structure, `(num_classes - 1,)`; see `Overlap.dice`.

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
    """The overlap of every channel of two sets of binary masks `(structures, *spatial)`.

    Args:
        prediction: above 0 where a structure is.
        truth: the same shape.
        annotated: as in `overlap_scores`, background included.
        case: its id, for errors.

    Raises:
        GeometryError: shapes that differ; LabelError: see `overlap_scores`.
    """
    same_shape(prediction, truth, case)
    channels = len(truth)
    counts = np.zeros((3, channels), np.int64)
    for channel in range(channels):
        one, other = as_array(prediction[channel]) > 0, as_array(truth[channel]) > 0
        counts[:, channel] = np.count_nonzero(one & other), np.count_nonzero(one), np.count_nonzero(other)
    held = np.ones(channels + 1, bool) if annotated is None else np.array(annotated, bool)
    confusion = np.diag(np.append(0, counts[2]))  # the truth alone, for its checks
    overlap_scores(confusion, held, case)
    return Overlap(counts[0] * held[1:], counts[1] * held[1:], counts[2], held[1:])


def multilabel_dice(prediction: Array, truth: Array) -> Scores:
    """Dice of every channel of two sets of binary masks `(structures, *spatial)`; NaN for one empty in both.

    Raises:
        GeometryError: shapes that differ.
    """
    return multilabel_overlap(prediction, truth).dice


def dice_by_structure(
    prediction: Array, truth: Array, labels: LabelMap, case: str = "", annotated: Iterable[str] | None = None
) -> dict[str, float]:
    """Dice of two label maps by structure name; NaN for one absent from both, or not among the `annotated`.

    Raises:
        GeometryError, LabelError: see `confusion_matrix`, `annotated_classes` and `overlap_scores`.
    """
    held = annotated_classes(labels, annotated, case)
    scores = overlap_scores(confusion_matrix(prediction, truth, len(labels), case), held, case).dice
    return {name: float(score) for name, score in zip(labels, scores, strict=True)}
