"""Dice as a stateful metric with `update`, `compute` and `reset`, for PyTorch loops and Lightning."""

from __future__ import annotations

from typing import Any

import torch

from medseg.errors import ConfigError, GeometryError
from medseg.metrics.overlap import confusion_matrix

AVERAGES = ("macro", "micro", "none", None)


class DiceScore:
    """Accumulate the Dice of batches of logits or label maps.

    Not torchmetrics' `DiceScore`, whose words it takes: no one-hot tensor is made, the background is left out by
    default, and a structure that is absent from prediction and truth has no value (NaN) and is in no mean.

    The state is two float64 sums for each class, in RAM. Where `torch.distributed` is initialized, `compute` adds up
    those of all ranks and leaves each rank's own state as it is.

    Args:
        num_classes: classes, background included.
        include_background: whether class 0 has a Dice, too.
        average: over structures: `macro` their mean; `micro` the Dice of all their voxels together; `none` or None
            for one value each, `(structures,)`.
        aggregation_level: `samplewise` for the Dice of each case and its mean over the cases that have the structure;
            `global` for the voxels of all cases together.
        ignore_index: voxels with this label in the truth take no part.

    Raises:
        ConfigError: an argument out of its range.

    Example:
        >>> metric = DiceScore(num_classes=3)
        >>> metric.update(torch.tensor([[[0, 1, 1, 2]]]), torch.tensor([[[0, 1, 2, 2]]]))
        >>> round(float(metric.compute()), 4)
        0.6667
    """

    def __init__(
        self,
        num_classes: int,
        include_background: bool = False,
        average: str | None = "macro",
        aggregation_level: str = "samplewise",
        ignore_index: int | None = None,
    ) -> None:
        if num_classes < 2:
            raise ConfigError("DiceScore, num_classes", "must be 2 or more", f"got {num_classes}")
        if average not in AVERAGES:
            raise ConfigError("DiceScore, average", "must be one of macro, micro, none", f"got '{average}'")
        if aggregation_level not in ("samplewise", "global"):
            problem = "must be samplewise or global"
            raise ConfigError("DiceScore, aggregation_level", problem, f"got '{aggregation_level}'")
        self.num_classes = num_classes
        self.first = 0 if include_background else 1
        self.average = average
        self.samplewise = aggregation_level == "samplewise"
        self.ignore_index = ignore_index
        self.reset()

    def reset(self) -> None:
        """Forget all cases."""
        # Numerator and denominator. Samplewise, these are the sum of Dice and the count of cases that have one, so
        # that one division serves both levels.
        columns = 1 if self.average == "micro" else self.num_classes - self.first
        self.state = torch.zeros((2, columns), dtype=torch.float64)

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Add the cases of a batch.

        Args:
            preds: logits or probabilities `(B, C, *spatial)`, or class indices `(B, 1, *spatial)` or `(B, *spatial)`.
            target: class indices `(B, 1, *spatial)` or `(B, *spatial)`.

        Raises:
            GeometryError: the shapes differ.
            LabelError: class indices out of range.
        """
        preds, target = _plain(preds), _plain(target)
        if preds.is_floating_point() and preds.ndim > 2 and preds.shape[1] == self.num_classes:
            preds = preds.argmax(dim=1)
        if target.ndim == preds.ndim + 1 and target.shape[1] == 1:
            target = target[:, 0]
        elif preds.ndim == target.ndim + 1 and preds.shape[1] == 1:
            preds = preds[:, 0]
        if preds.shape != target.shape:
            problem = f"predictions of shape {tuple(preds.shape)} do not fit a target of shape {tuple(target.shape)}"
            raise GeometryError("DiceScore", problem)
        for prediction, truth in zip(preds, target, strict=True):
            if self.ignore_index is not None:
                counted = truth != self.ignore_index
                prediction, truth = prediction[counted.to(prediction.device)], truth[counted]
            self._add(torch.from_numpy(confusion_matrix(prediction, truth, self.num_classes)).double())

    def _add(self, confusion: torch.Tensor) -> None:
        intersection = confusion.diagonal()[self.first :]
        total = (confusion.sum(dim=0) + confusion.sum(dim=1))[self.first :]
        counts = torch.stack([2 * intersection, total])
        if self.average == "micro":
            counts = counts.sum(dim=1, keepdim=True)
        if self.samplewise:
            present = counts[1] > 0
            dice = torch.where(present, counts[0] / counts[1].clamp(min=1), 0)
            counts = torch.stack([dice, present.double()])
        self.state += counts

    def compute(self) -> torch.Tensor:
        """Return the Dice of all cases so far, float32: a scalar, or `(structures,)` without an average.

        NaN for a structure that was nowhere, and for the mean of such structures alone.
        """
        numerator, denominator = self._summed_over_ranks()
        scores = (numerator / denominator).float()  # 0/0 is NaN
        return scores if self.average in ("none", None) else torch.nanmean(scores)

    def _summed_over_ranks(self) -> torch.Tensor:
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return self.state
        # NCCL adds up tensors on a GPU only.
        on_gpu = distributed.get_backend() == "nccl"
        state = self.state.to(torch.device("cuda") if on_gpu else self.state.device, copy=True)
        distributed.all_reduce(state)
        return state.cpu()


def _plain(tensor: Any) -> torch.Tensor:
    """Return a tensor without MONAI's metadata, which slows indexing down."""
    return torch.as_tensor(tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor).detach()
