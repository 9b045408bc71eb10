"""Use any loss on logits for cases in which not every structure was annotated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from medseg.errors import GeometryError
from medseg.losses.annotated import Annotated, annotated_rows, unpack_labels, without_metadata


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
