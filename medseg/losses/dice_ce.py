"""Dice and cross-entropy for many classes, from class indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from medseg.errors import ConfigError, DataError, GeometryError, LabelError
from medseg.losses.voxels import Sums, Truth, voxel_sums

Annotated = torch.Tensor | Sequence[Sequence[int]]


class DiceCELoss(torch.nn.Module):
    """Dice and cross-entropy of softmax probabilities against class indices, without ever making a one-hot.

    Not MONAI's `DiceCELoss`: `DiceCELoss(...)` here is `monai.losses.DiceCELoss(to_onehot_y=True, softmax=True, ...)`
    there, with the same values, in a third of the time and with the gradient as the only thing of the size of
    the logits. What it has beside that: `ignore_index`, and cases in which not every structure was annotated.

    In such a case a voxel of the background may be anything that nobody looked for. So the probabilities of the
    structures that are not annotated in it are merged into that of the background, for the cross-entropy and for the
    background's Dice, and they have no Dice of their own there (marginal loss: Shi, G. et al. (2021). Marginal loss
    and exclusion loss for partially supervised multi-organ segmentation. Medical Image Analysis 70).

    Dice: Milletari, F. et al. (2016). V-Net. 3DV.

    Args:
        include_background: whether the background has a Dice, too.
        batch: sum over all cases of the batch before dividing, instead of one Dice a case.
        squared_pred: squares of the probabilities in the denominator.
        jaccard: the soft Jaccard index instead of Dice.
        reduction: `mean` over voxels and over Dices, or `sum`.
        smooth_nr: added to the numerator of Dice.
        smooth_dr: added to its denominator.
        weight: of each class, the background among them, for both parts.
        lambda_dice: weight of Dice; 0 leaves cross-entropy alone.
        lambda_ce: weight of the cross-entropy; 0 leaves Dice alone.
        label_smoothing: share of the cross-entropy that goes to all (annotated) classes alike.
        ignore_index: voxels with this label take no part.
        focal_gamma: makes the cross-entropy a focal loss, (1 - p)^gamma times that of each voxel (Lin, T.-Y. et al.
            (2017). Focal loss for dense object detection. ICCV); MONAI's `DiceFocalLoss` takes sigmoids for it.

    Attributes:
        parts: `dice` and `ce` of the last batch, without graph and before `lambda_dice` and `lambda_ce`, on the
            device of the logits; a part that has no weight is not among them.

    Raises:
        ConfigError: an option that cannot be.

    >>> loss = DiceCELoss()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
    >>> round(float(loss), 4)
    1.3598
    """

    honours_annotated = True
    weight: torch.Tensor | None

    def __init__(
        self,
        include_background: bool = True,
        batch: bool = False,
        squared_pred: bool = False,
        jaccard: bool = False,
        reduction: str = "mean",
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        weight: Sequence[float] | torch.Tensor | None = None,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
        focal_gamma: float = 0.0,
    ) -> None:
        super().__init__()
        weights = None if weight is None else torch.as_tensor(weight, dtype=torch.float32)
        for good, option, rule, found in (
            (reduction in ("mean", "sum"), "reduction", "must be mean or sum", repr(reduction)),
            (0 <= label_smoothing <= 1, "label_smoothing", "must be from 0 to 1", str(label_smoothing)),
            (focal_gamma == 0 or focal_gamma >= 1, "focal_gamma", "must be 0, or 1 or more", str(focal_gamma)),
            (lambda_dice >= 0, "lambda_dice", "must be 0 or more", str(lambda_dice)),
            (lambda_ce >= 0, "lambda_ce", "must be 0 or more", str(lambda_ce)),
            (lambda_dice + lambda_ce > 0, "DiceCELoss", "needs one of lambda_dice and lambda_ce", "0 for both"),
            (smooth_dr > 0 <= smooth_nr, "smooth_dr", "must be above 0, smooth_nr 0 or more",
             f"{smooth_dr} and {smooth_nr}"),
            (weights is None or (weights.ndim == 1 and bool((weights >= 0).all())), "weight",
             "must hold a number of 0 or more for each class", repr(weight)),
        ):  # fmt: skip
            if not good:
                raise ConfigError(option, rule, found)
        self.include_background, self.batch = include_background, batch
        self.squared_pred, self.jaccard, self.reduction = squared_pred, jaccard, reduction
        self.smooth_nr, self.smooth_dr = float(smooth_nr), float(smooth_dr)
        self.lambda_dice, self.lambda_ce = float(lambda_dice), float(lambda_ce)
        self.label_smoothing, self.ignore_index = float(label_smoothing), ignore_index
        self.focal_gamma = float(focal_gamma)
        self.parts: dict[str, torch.Tensor] = {}
        self.register_buffer("weight", weights, persistent=False)

    def forward(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor | Mapping[str, Any],
        annotated: Annotated | None = None,
        cases: Sequence[str] | None = None,
    ) -> torch.Tensor:
        """The loss of a batch, a float32 scalar; NaN, and so its gradient, where logits are NaN or infinite.

        With half precision that happens now and then, and AMP's scaler leaves such a step out; what else it means is
        for whoever trains (`medseg.training.NanGuard`).

        Args:
            logits: `(B, C, *spatial)`, the background is class 0; float32, float16, bfloat16 or float64.
            labels: class indices `(B, 1, *spatial)` of any integer type; or a mapping with these as `label` and,
                where they are known, `annotated` and `case` (what `medseg.training.prepare_batch` gives a trainer).
            annotated: which classes somebody looked for in each case: bool `(B, C)`, or for each case their
                indices. The background counts as annotated whatever is said. None: all in all cases.
            cases: their ids, for errors.

        Raises:
            GeometryError: shapes that do not belong together.
            LabelError: labels that are no integers, or of no class.
            DataError: a case without any annotated structure.
        """
        if not isinstance(labels, torch.Tensor):
            said: Mapping[str, Any] = labels
            labels, annotated, cases = said["label"], said.get("annotated", annotated), said.get("case", cases)
        logits, labels = plain(logits), plain(labels)
        _check_shapes(logits, labels)
        number, classes = logits.shape[:2]
        known = annotated_rows(annotated, number, classes, cases)
        target = labels.reshape(number, -1).to(logits.device, torch.int64)
        ignored = torch.zeros_like(target, dtype=torch.bool)
        if self.ignore_index is not None:
            ignored = target == self.ignore_index
        wrong = ~ignored & ((target < 0) | (target >= classes))
        target = target.masked_fill(ignored | wrong, -1)
        partly = not bool(known.all())
        known = known.to(logits.device)
        if partly:
            target = torch.where(known.gather(1, target.clamp(min=0)), target, target.clamp(max=0))
        weight = self._weight(classes, logits)
        soft = self.label_smoothing * weight * known / known.sum(dim=1, keepdim=True)
        truth = Truth(
            target.int(), ~known, (1 - self.label_smoothing) * weight, soft.float(), self.squared_pred,
            partly, self.label_smoothing > 0, self.focal_gamma,
        )  # fmt: skip
        sums = voxel_sums(logits, truth)
        bad = torch.stack([wrong.any(dim=1), ~(sums.cross + sums.mass.sum(dim=1)).isfinite()])
        if bool(bad.any()):  # the only time that a GPU is waited for
            self._refuse(labels, wrong, _names(cases, number), classes)
        size = sums.mass.new_zeros(number, classes + 1)
        size = size.scatter_add_(1, target + 1, size.new_ones(1, 1).expand_as(target))[:, 1:]
        loss = self.value(sums, size, known, weight).float()
        return loss * torch.where(bad[1].any(), torch.nan, 1.0)

    def value(self, sums: Sums, size: torch.Tensor, known: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The loss from its sums.

        Args:
            sums: over voxels and probabilities.
            size: voxels of each class, `(B, C)`.
            known: whether a class is annotated in a case, `(B, C)`.
            weight: of each class, `(C,)`.
        """
        loss, parts = sums.cross.new_zeros(()), {}
        if self.lambda_ce:
            cross = sums.cross.sum()
            if self.reduction == "mean":
                total = (size * weight).sum()
                cross = torch.where(total > 0, cross / total.clamp(min=torch.finfo(torch.float32).tiny), 0)
            loss, parts["ce"] = loss + self.lambda_ce * cross, cross.detach()
        if self.lambda_dice:
            both, mass = sums.both, sums.mass
            if self.batch:
                both, mass, size = (one.sum(dim=0, keepdim=True) for one in (both, mass, size))
                known = known.any(dim=0, keepdim=True)
            union = 2 * (mass + size - both) if self.jaccard else mass + size
            dice = 1 - (2 * both + self.smooth_nr) / (union + self.smooth_dr)
            first = 0 if self.include_background else 1
            if dice.shape[1] - first > 1:  # the only class has no weight, as in MONAI
                dice = dice * weight
            kept = known[:, first:].to(dice)
            found = (dice[:, first:] * kept).sum()
            found = found / kept.sum() if self.reduction == "mean" else found
            loss, parts["dice"] = loss + self.lambda_dice * found, found.detach()
        self.parts = parts
        return loss

    def _weight(self, classes: int, logits: torch.Tensor) -> torch.Tensor:
        if self.weight is None:
            return torch.ones(classes, device=logits.device)
        if len(self.weight) != classes:
            raise ConfigError("weight", f"must hold a number for each of {classes} classes", f"{len(self.weight)}")
        return self.weight.to(logits.device)

    def _refuse(self, labels: torch.Tensor, wrong: torch.Tensor, names: Sequence[str], classes: int) -> None:
        for name, values, where in zip(names, labels.flatten(1), wrong.to(labels.device), strict=True):
            if bool(where.any()):
                found = ", ".join(str(value) for value in values[where].unique().tolist()[:5])
                raise LabelError(
                    name,
                    f"must hold labels from 0 to {classes - 1}",
                    f"{found} in {int(where.sum())} voxels",
                    "Compare its label map with the network's classes, or name the value as ignore_index.",
                )


def plain(tensor: Any) -> torch.Tensor:
    """Without MONAI's metadata."""
    found: torch.Tensor = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    return found


def _check_shapes(logits: torch.Tensor, labels: torch.Tensor) -> None:
    if logits.ndim < 3 or logits.shape[1] < 2:
        raise GeometryError(
            "logits", "must be (B, C, *spatial) with a background and at least one structure", f"{tuple(logits.shape)}"
        )
    if not logits.is_floating_point():
        raise ConfigError("logits", "must be floats", str(logits.dtype))
    wanted = (logits.shape[0], 1, *logits.shape[2:])
    if tuple(labels.shape) != wanted:
        raise GeometryError("labels", f"must have the shape {wanted} for these logits", f"{tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        raise LabelError(
            "labels", "must be class indices of an integer type", str(labels.dtype), "Cast them in the transforms."
        )


def _names(cases: Sequence[str] | None, number: int) -> list[str]:
    return [f"case {one}" for one in cases] if cases else [f"case {b} of the batch" for b in range(number)]


def annotated_rows(
    annotated: Annotated | None, number: int, classes: int, cases: Sequence[str] | None = None
) -> torch.Tensor:
    """Which classes are annotated in which case, `(B, C)`, bool, the background always.

    Args:
        annotated: as `DiceCELoss` takes it.
        number: cases.
        classes: the background among them.
        cases: their ids, for errors.

    Raises:
        GeometryError, LabelError, DataError: see `DiceCELoss`.
    """
    if annotated is None:
        return torch.ones(number, classes, dtype=torch.bool)
    names = _names(cases, number)
    if not isinstance(annotated, torch.Tensor):
        rows = torch.zeros(number, classes, dtype=torch.bool)
        if len(annotated) != number:
            raise GeometryError("annotated", f"must have an entry for each of {number} cases", f"{len(annotated)}")
        for row, name, listed in zip(rows, names, annotated, strict=True):
            if len(listed) and not 0 <= min(listed) <= max(listed) < classes:
                raise LabelError(name, f"annotated must hold classes from 0 to {classes - 1}", str(list(listed)))
            row[list(listed)] = True
        annotated = rows
    if tuple(annotated.shape) != (number, classes):
        raise GeometryError("annotated", f"must have the shape {(number, classes)}", f"{tuple(annotated.shape)}")
    known = annotated.bool().clone()
    for name, row in zip(names, known, strict=True):
        if not bool(row[1:].any()):
            raise DataError(
                name, "needs an annotated structure to learn from", "none of the network's", "Leave the case out."
            )
    known[:, 0] = True
    return known
