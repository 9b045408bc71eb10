"""Any loss on logits, for cases in which not every structure was annotated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from medseg.errors import GeometryError
from medseg.losses.dice_ce import Annotated, annotated_rows, plain


class MarginalLoss(torch.nn.Module):
    """A loss of MONAI's or torch's, with the structures that are not annotated in a case left out of it there.

    Not a loss of its own, and where it is Dice with cross-entropy, `DiceCELoss` does the same in a fraction of the
    time. With softmax the probability of what is not annotated goes to the background, exactly: the background's
    logit becomes the log of the sum, and what was summed is set so low that nothing is left of it. With sigmoid the
    channels that are not annotated are set so low that they say "absent" for certain, and nothing pulls on them;
    whatever their truth. Means still count them, as classes without error. MONAI's `DiceFocalLoss` has a focal loss
    of sigmoids even with `softmax=True`: take `DiceCELoss(focal_gamma=...)` instead.

    Args:
        loss: takes `(B, C, *spatial)` logits and labels, with softmax or sigmoid inside.
        sigmoid: whether channels are structures of their own, without a background among them.
    """

    honours_annotated = True
    LOW = -1e4

    def __init__(self, loss: torch.nn.Module, sigmoid: bool = False) -> None:
        super().__init__()
        self.loss, self.sigmoid = loss, sigmoid

    @property
    def parts(self) -> dict[str, torch.Tensor]:
        """What the loss inside says of its parts in the last batch, see `DiceCELoss`; empty where it says nothing."""
        return dict(getattr(self.loss, "parts", None) or {})

    def forward(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor | Mapping[str, Any],
        annotated: Annotated | None = None,
        cases: Sequence[str] | None = None,
    ) -> torch.Tensor:
        """The loss of a batch.

        Args:
            logits: `(B, C, *spatial)`.
            labels: what the loss wants, class indices `(B, 1, *spatial)` or binary channels `(B, C, *spatial)`; or
                a mapping, as `DiceCELoss` takes it.
            annotated: as `DiceCELoss` takes it; with sigmoid, too, class 0 is the background.
            cases: their ids, for errors.

        Raises:
            GeometryError, LabelError, DataError: see `DiceCELoss`.
        """
        if not isinstance(labels, torch.Tensor):
            said: Mapping[str, Any] = labels
            labels, annotated, cases = said["label"], said.get("annotated", annotated), said.get("case", cases)
        logits, labels = plain(logits), plain(labels)
        if logits.shape[:1] != labels.shape[:1] or logits.shape[2:] != labels.shape[2:]:
            raise GeometryError(
                "labels", f"must belong to logits of shape {tuple(logits.shape)}", f"{tuple(labels.shape)}"
            )
        known = annotated_rows(annotated, len(logits), logits.shape[1] + self.sigmoid, cases)
        if bool(known.all()):
            found: torch.Tensor = self.loss(logits, labels)
            return found
        known = known[:, int(self.sigmoid) :].to(logits.device)
        shape = (*known.shape, *[1] * (logits.ndim - 2))
        kept = known.view(shape)
        low = max(self.LOW, torch.finfo(logits.dtype).min)
        if self.sigmoid:
            labels = labels * kept
        else:
            rest = kept.logical_not()
            rest[:, 0] = True
            ground = torch.where(rest, logits, -torch.inf).logsumexp(dim=1, keepdim=True)
            logits = torch.cat([ground, logits[:, 1:]], dim=1)
            if labels.shape[1] == 1:
                flat = labels.long().flatten(1).clamp(0, known.shape[1] - 1)
                labels = torch.where(known.gather(1, flat).view_as(labels), labels, 0)
        made: torch.Tensor = self.loss(torch.where(kept, logits, low), labels)
        return made
