"""Handle cases in which not every structure was annotated, in any loss on logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from medseg.errors import ConfigError, DataError, GeometryError, LabelError

Annotated = torch.Tensor | Sequence[Sequence[int]]


class MarginalLoss(torch.nn.Module):
    """Leave the structures that are not annotated in a case out of a loss of MONAI's or torch's.

    Not a loss of its own, and for Dice with cross-entropy `DiceCELoss` does the same in a fraction of the time. With
    softmax the probability of what is not annotated goes to the background, exactly: the background's logit becomes
    the log of the sum, and what was summed is set so low that nothing is left of it. With sigmoid the channels that
    are not annotated are set so low that they are certainly absent, and have no gradient, whatever their labels.
    Means still count them, as classes without error. MONAI's `DiceFocalLoss` has a focal loss of sigmoids even with
    `softmax=True`: use `DiceCELoss(focal_gamma=...)` instead.

    Args:
        loss: takes `(B, C, *spatial)` logits and labels, with softmax or sigmoid inside.
        sigmoid: whether channels are independent structures, without a background.

    Example:
        >>> loss = MarginalLoss(torch.nn.BCEWithLogitsLoss(), sigmoid=True)
        >>> round(loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4), annotated=[[1]]).item(), 4)
        0.3466
    """

    supports_annotated = True
    LOW = -1e4  # as a logit, a probability of 0 in float32

    def __init__(self, loss: torch.nn.Module, sigmoid: bool = False) -> None:
        super().__init__()
        self.loss = loss
        self.sigmoid = sigmoid

    @property
    def parts(self) -> dict[str, torch.Tensor]:
        """The parts of the inner loss in the last batch, see `DiceCELoss`; empty if it has none."""
        return dict(getattr(self.loss, "parts", None) or {})

    def forward(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor | Mapping[str, Any],
        annotated: Annotated | None = None,
        cases: Sequence[str] | None = None,
    ) -> torch.Tensor:
        """Return the loss of a batch.

        Args:
            logits: `(B, C, *spatial)`.
            labels: what the inner loss takes, class indices `(B, 1, *spatial)` or binary channels
                `(B, C, *spatial)`; or a mapping, as for `DiceCELoss`.
            annotated: as for `DiceCELoss`; with sigmoid, too, class 0 is the background.
            cases: their ids, for errors.

        Raises:
            GeometryError: the shapes do not fit.
            LabelError: an annotated class out of range.
            DataError: a case without any annotated structure.
        """
        labels, annotated, cases = unpack_labels(labels, annotated, cases)
        logits, labels = without_metadata(logits), without_metadata(labels)
        if logits.shape[:1] != labels.shape[:1] or logits.shape[2:] != labels.shape[2:]:
            problem = f"do not fit logits of shape {tuple(logits.shape)}"
            raise GeometryError("labels", problem, f"got shape {tuple(labels.shape)}")
        mask = annotated_rows(annotated, len(logits), logits.shape[1] + self.sigmoid, cases)
        if bool(mask.all()):
            return torch.as_tensor(self.loss(logits, labels))
        mask = mask[:, int(self.sigmoid) :].to(logits.device)
        channels = mask.view(*mask.shape, *[1] * (logits.ndim - 2))
        low = max(self.LOW, torch.finfo(logits.dtype).min)
        if self.sigmoid:
            labels = labels * channels
        else:
            merged = channels.logical_not()
            merged[:, 0] = True
            background = torch.where(merged, logits, -torch.inf).logsumexp(dim=1, keepdim=True)
            logits = torch.cat([background, logits[:, 1:]], dim=1)
            if labels.shape[1] == 1:
                # Labels of structures that are not annotated become background.
                flat = labels.long().flatten(1).clamp(0, mask.shape[1] - 1)
                labels = torch.where(mask.gather(1, flat).view_as(labels), labels, 0)
        return torch.as_tensor(self.loss(torch.where(channels, logits, low), labels))


def unpack_labels(
    labels: torch.Tensor | Mapping[str, Any], annotated: Annotated | None, cases: Sequence[str] | None
) -> tuple[torch.Tensor, Annotated | None, Sequence[str] | None]:
    """Return labels, annotated classes and case ids, from a mapping where `labels` is one."""
    if isinstance(labels, torch.Tensor):
        return labels, annotated, cases
    return labels["label"], labels.get("annotated", annotated), labels.get("case", cases)


def without_metadata(tensor: Any) -> torch.Tensor:
    """Return a tensor without MONAI's metadata, which slows every operation down."""
    plain: torch.Tensor = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    return plain


def require_class_indices(logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Raise an error unless labels are class indices `(B, 1, *spatial)` that fit logits `(B, C, *spatial)`.

    Raises:
        GeometryError: the shapes do not fit.
        ConfigError: the logits are no floats.
        LabelError: the labels are no integers.
    """
    if logits.ndim < 3 or logits.shape[1] < 2:
        problem = "must be (B, C, *spatial) with a background and at least one structure"
        raise GeometryError("logits", problem, f"got shape {tuple(logits.shape)}")
    if not logits.is_floating_point():
        raise ConfigError("logits", "must be floats", f"got {logits.dtype}")
    expected = (logits.shape[0], 1, *logits.shape[2:])
    if tuple(labels.shape) != expected:
        problem = f"must have the shape {expected} for these logits"
        raise GeometryError("labels", problem, f"got shape {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        fix = "Cast them in the transforms."
        raise LabelError("labels", "must be class indices of an integer type", f"got {labels.dtype}", fix)


def case_names(cases: Sequence[str] | None, count: int) -> list[str]:
    """Return how errors name the cases of a batch."""
    return [f"case {case}" for case in cases] if cases else [f"case {b} of the batch" for b in range(count)]


def annotated_rows(
    annotated: Annotated | None, count: int, classes: int, cases: Sequence[str] | None = None
) -> torch.Tensor:
    """Return which classes are annotated in which case, `(B, C)`, bool; the background always is.

    Args:
        annotated: bool `(B, C)`, or for each case the indices of its annotated classes; None for all.
        count: of cases.
        classes: the background included.
        cases: their ids, for errors.

    Raises:
        GeometryError: the shape does not fit.
        LabelError: an index is out of range.
        DataError: a case has no annotated structure.
    """
    if annotated is None:
        return torch.ones(count, classes, dtype=torch.bool)
    names = case_names(cases, count)
    if not isinstance(annotated, torch.Tensor):
        rows = torch.zeros(count, classes, dtype=torch.bool)
        if len(annotated) != count:
            raise GeometryError("annotated", f"must have an entry for each of {count} cases", f"got {len(annotated)}")
        for row, name, indices in zip(rows, names, annotated, strict=True):
            if len(indices) and not 0 <= min(indices) <= max(indices) < classes:
                problem = f"annotated classes must lie between 0 and {classes - 1}"
                raise LabelError(name, problem, f"got {list(indices)}")
            row[list(indices)] = True
        annotated = rows
    if tuple(annotated.shape) != (count, classes):
        problem = f"must have the shape {(count, classes)}"
        raise GeometryError("annotated", problem, f"got shape {tuple(annotated.shape)}")
    mask = annotated.bool().clone()
    for name, row in zip(names, mask, strict=True):
        if not bool(row[1:].any()):
            fix = "Exclude the case."
            raise DataError(
                name, "none of the network's structures is annotated, so there is nothing to learn", fix=fix
            )
    mask[:, 0] = True
    return mask
