"""Dice of every structure from one confusion matrix for each volume.

Not MONAI's `DiceMetric`: that one gives 0 for a structure that is absent from both sides, and with 118 classes
takes half a minute and gigabytes for a volume. Counting pairs once gives all classes at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
import numpy.typing as npt
import torch
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced

from medseg.errors import GeometryError, LabelError
from medseg.labels import LabelMap

Array = npt.NDArray[Any] | torch.Tensor
Counts = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


def confusion_matrix(prediction: Array, truth: Array, num_classes: int, case: str = "") -> Counts:
    """How many voxels have truth `r` and prediction `c`, `(num_classes, num_classes)`.

    Args:
        prediction: class indices, any shape.
        truth: class indices, the same shape, on the same grid.
        num_classes: classes, background included.
        case: its id, for errors.

    Raises:
        GeometryError: shapes that differ.
        LabelError: an index below 0 or not below `num_classes`.

    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 1, 0]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    thing = f"case {case}" if case else "a prediction"
    first, second = torch.as_tensor(prediction).reshape(-1).long(), torch.as_tensor(truth).reshape(-1).long()
    if tuple(prediction.shape) != tuple(truth.shape):
        raise GeometryError(thing, f"must have the truth's shape, {tuple(truth.shape)}", f"{tuple(prediction.shape)}")
    for name, values in (("prediction", first), ("truth", second)):
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
            raise LabelError(
                f"{thing}, {name}",
                f"must hold labels from 0 to {num_classes - 1}",
                f"{int(values.min())} to {int(values.max())}",
            )
    counts = torch.bincount(second.to(first.device) * num_classes + first, minlength=num_classes**2)
    return np.asarray(counts.cpu().numpy().reshape(num_classes, num_classes))


def dice(confusion: Counts) -> Scores:
    """Dice of every structure, `(num_classes - 1,)`; NaN for one absent from truth and prediction.

    A structure that is in one of them alone has Dice 0: what is false is counted.

    Dice, L. R. (1945). Measures of the amount of ecologic association between species. Ecology 26.

    >>> dice(np.array([[5, 1, 0], [0, 4, 0], [0, 0, 0]])).round(3).tolist()
    [0.889, nan]
    """
    both = np.diag(confusion)[1:].astype(np.float64)
    size = (confusion.sum(axis=0) + confusion.sum(axis=1))[1:].astype(np.float64)
    return np.asarray(np.divide(2.0 * both, size, out=np.full_like(both, np.nan), where=size > 0))


def multilabel_dice(prediction: Array, truth: Array) -> Scores:
    """Dice of every channel of two sets of binary masks `(channels, *spatial)`; NaN for one empty in both.

    Raises:
        GeometryError: shapes that differ.
    """
    first, second = torch.as_tensor(prediction), torch.as_tensor(truth)
    if first.shape != second.shape:
        raise GeometryError(
            "a prediction", f"must have the truth's shape, {tuple(second.shape)}", f"{tuple(first.shape)}"
        )
    scores = np.full(len(first), np.nan)
    for channel, (one, other) in enumerate(zip(first.bool(), second.to(first.device).bool(), strict=True)):
        size = int(one.sum()) + int(other.sum())
        if size:
            scores[channel] = 2.0 * int((one & other).sum()) / size
    return scores


def dice_by_structure(prediction: Array, truth: Array, labels: LabelMap, case: str = "") -> dict[str, float]:
    """Dice of two label maps by structure name; NaN for one absent from both.

    Raises:
        GeometryError, LabelError: see `confusion_matrix`.
    """
    scores = dice(confusion_matrix(prediction, truth, len(labels), case))
    return {name: float(score) for name, score in zip(labels, scores, strict=True)}


def mean_over_cases(scores: Iterable[Scores]) -> Scores:
    """Mean of every structure over the cases in which it is present, `(structures,)`; NaN where it never is."""
    table = np.stack(list(scores))
    present = ~np.isnan(table)
    total = np.where(present, table, 0.0).sum(axis=0)
    count = present.sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0))


class VolumeDice(Metric):
    """Mean Dice over structures and cases, as an Ignite metric over whole volumes.

    First the mean of each structure over the cases where it is present, then the mean over the structures. After
    each epoch `engine.state.metric_details[name]` holds `by_structure` (name to Dice, None where never
    present) and `cases`.

    Args:
        labels: the classes.
        output_transform: gives `(predictions, truths)`, lists of `(1, *spatial)` class indices, or of
            `(structures, *spatial)` binary masks with `multilabel`.
        multilabel: whether structures are channels of their own.
    """

    def __init__(
        self, labels: LabelMap, output_transform: Callable[..., Any] = lambda output: output, multilabel: bool = False
    ) -> None:
        self.labels, self.multilabel = labels, multilabel
        self._scores: list[Scores] = []
        super().__init__(output_transform)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all cases."""
        self._scores = []

    @reinit__is_reduced
    def update(self, output: Sequence[Sequence[torch.Tensor]]) -> None:
        """Take in the cases of one batch."""
        for prediction, truth in zip(*output, strict=True):
            if self.multilabel:
                self._scores.append(multilabel_dice(prediction, truth))
            else:
                self._scores.append(dice(confusion_matrix(prediction, truth, len(self.labels))))

    def compute(self) -> float:
        """The mean over all structures that were present anywhere; NaN where none was."""
        scores = self._scores
        if idist.get_world_size() > 1:
            parts: Any = idist.all_gather(scores)
            scores = [score for part in parts for score in part]
        if not scores:
            raise NotComputableError("VolumeDice needs at least one case before it can be computed.")
        self._means, self._count = mean_over_cases(scores), len(scores)
        present = self._means[~np.isnan(self._means)]
        return float(present.mean()) if len(present) else float("nan")

    def completed(self, engine: Any, name: str) -> None:
        """Put the mean and the details where handlers look for them."""
        super().completed(engine, name)
        details = getattr(engine.state, "metric_details", None)
        if details is None:
            details = {}
            engine.state.metric_details = details
        means = zip(self.labels, self._means, strict=True)
        by_structure = {label: None if np.isnan(mean) else float(mean) for label, mean in means}
        details[name] = {"by_structure": by_structure, "cases": self._count}
