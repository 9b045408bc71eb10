"""Dice and cross-entropy for many classes, from class indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from medseg.errors import ConfigError, LabelError
from medseg.losses.marginal import (
    Annotated,
    annotated_rows,
    case_names,
    require_class_indices,
    unpack_labels,
    without_metadata,
)
from medseg.losses.voxel_sums import VoxelSums, VoxelTargets, voxel_sums


class DiceCELoss(torch.nn.Module):
    """Compute Dice and cross-entropy of softmax probabilities from class indices, without a one-hot tensor.

    Not MONAI's `DiceCELoss`: `DiceCELoss(...)` here is `monai.losses.DiceCELoss(to_onehot_y=True, softmax=True, ...)`
    there, with the same values, in a third of the time and with the gradient as the only thing of the size of
    the logits. Beyond that it has `ignore_index`, and takes cases in which not every structure was annotated.

    In such a case a voxel of the background may belong to any structure that was not annotated. So the probabilities
    of these structures are merged into that of the background, for the cross-entropy and for the background's Dice,
    and they have no Dice of their own (marginal loss: Shi, G. et al. (2021). Marginal loss and exclusion loss for
    partially supervised multi-organ segmentation. Medical Image Analysis 70).

    Dice: Milletari, F. et al. (2016). V-Net. 3DV.

    Args:
        include_background: whether the background has a Dice, too.
        batch: sum over all cases of the batch before dividing, instead of one Dice a case.
        squared_pred: squares of the probabilities in the denominator.
        jaccard: the soft Jaccard index instead of Dice.
        reduction: `mean` over voxels and over Dices, or `sum`.
        smooth_nr: added to the numerator of Dice.
        smooth_dr: added to its denominator.
        weight: of each class, the background included, for both parts.
        lambda_dice: weight of Dice; 0 for cross-entropy alone.
        lambda_ce: weight of the cross-entropy; 0 for Dice alone.
        label_smoothing: share of the cross-entropy that is spread evenly over all (annotated) classes.
        ignore_index: voxels with this label take no part.
        focal_gamma: makes the cross-entropy a focal loss, (1 - p)^gamma times that of each voxel (Lin, T.-Y. et al.
            (2017). Focal loss for dense object detection. ICCV); MONAI's `DiceFocalLoss` uses sigmoids for it.

    Attributes:
        parts: `dice` and `ce` of the last batch, detached and before `lambda_dice` and `lambda_ce`, on the device of
            the logits; a part without weight is left out.

    Raises:
        ConfigError: an option out of its range.

    Example:
        >>> loss = DiceCELoss()
        >>> logits = torch.zeros(1, 2, 4, 4, requires_grad=True)
        >>> value = loss(logits, torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
        >>> value.backward()
        >>> round(value.item(), 4)
        1.3598
    """

    supports_annotated = True
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
        _require(reduction in ("mean", "sum"), "reduction", "must be mean or sum", reduction)
        _require(0 <= label_smoothing <= 1, "label_smoothing", "must be from 0 to 1", label_smoothing)
        _require(focal_gamma == 0 or focal_gamma >= 1, "focal_gamma", "must be 0, or 1 or more", focal_gamma)
        _require(lambda_dice >= 0, "lambda_dice", "must be 0 or more", lambda_dice)
        _require(lambda_ce >= 0, "lambda_ce", "must be 0 or more", lambda_ce)
        _require(lambda_dice + lambda_ce > 0, "lambda_dice", "must be above 0 where lambda_ce is 0", lambda_dice)
        _require(smooth_nr >= 0, "smooth_nr", "must be 0 or more", smooth_nr)
        _require(smooth_dr > 0, "smooth_dr", "must be above 0", smooth_dr)
        good = weights is None or (weights.ndim == 1 and bool((weights >= 0).all()))
        _require(good, "weight", "must hold a number of 0 or more for each class", weight)
        self.include_background = include_background
        self.batch = batch
        self.squared_pred = squared_pred
        self.jaccard = jaccard
        self.reduction = reduction
        self.smooth_nr = float(smooth_nr)
        self.smooth_dr = float(smooth_dr)
        self.lambda_dice = float(lambda_dice)
        self.lambda_ce = float(lambda_ce)
        self.label_smoothing = float(label_smoothing)
        self.ignore_index = ignore_index
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
        """Return the loss of a batch, a float32 scalar; NaN, and so is its gradient, for NaN or infinite logits.

        With half precision that happens now and then, and AMP's scaler skips such a step; otherwise it is up to the
        training loop (`medseg.training.NanGuard`).

        Args:
            logits: `(B, C, *spatial)`, the background is class 0; float32, float16, bfloat16 or float64.
            labels: class indices `(B, 1, *spatial)` of any integer type; or a mapping with these as `label` and,
                where known, `annotated` and `case` (`medseg.training.PrepareBatch` gives such a mapping).
            annotated: which classes were annotated in each case: bool `(B, C)`, or for each case their indices. The
                background always counts as annotated. None: all in all cases.
            cases: their ids, for errors.

        Raises:
            GeometryError: the shapes do not fit.
            LabelError: labels that are no integers, or out of range.
            DataError: a case without any annotated structure.
        """
        labels, annotated, cases = unpack_labels(labels, annotated, cases)
        logits, labels = without_metadata(logits), without_metadata(labels)
        require_class_indices(logits, labels)
        count, classes = logits.shape[:2]
        mask = annotated_rows(annotated, count, classes, cases)
        target = labels.reshape(count, -1).to(logits.device, torch.int64)
        ignored = torch.zeros_like(target, dtype=torch.bool)
        if self.ignore_index is not None:
            ignored = target == self.ignore_index
        wrong = ~ignored & ((target < 0) | (target >= classes))
        target = target.masked_fill(ignored | wrong, -1)
        any_merged = not bool(mask.all())
        mask = mask.to(logits.device)
        if any_merged:
            # Labels of structures that are not annotated become background.
            target = torch.where(mask.gather(1, target.clamp(min=0)), target, target.clamp(max=0))
        weight = self._weight(classes, logits)
        soft = self.label_smoothing * weight * mask / mask.sum(dim=1, keepdim=True)
        targets = VoxelTargets(
            target=target.int(),
            merged=~mask,
            hard=(1 - self.label_smoothing) * weight,
            soft=soft.float(),
            squared=self.squared_pred,
            any_merged=any_merged,
            any_soft=self.label_smoothing > 0,
            gamma=self.focal_gamma,
        )
        sums = voxel_sums(logits, targets)
        not_finite = ~(sums.cross_entropy + sums.prediction.sum(dim=1)).isfinite()
        bad = torch.stack([wrong.any(dim=1), not_finite])
        if bool(bad.any()):  # the only time that the CPU waits for the GPU
            self._refuse(labels, wrong, case_names(cases, count), classes)
        # Voxels of each class; column 0 collects those that take no part.
        size = sums.prediction.new_zeros(count, classes + 1)
        size = size.scatter_add_(1, target + 1, size.new_ones(1, 1).expand_as(target))[:, 1:]
        loss = self.value(sums, size, mask, weight).float()
        return loss * torch.where(bad[1].any(), torch.nan, 1.0)

    def value(self, sums: VoxelSums, size: torch.Tensor, annotated: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return the loss from its sums.

        Args:
            sums: over the voxels.
            size: voxels of each class, `(B, C)`.
            annotated: whether a class is annotated in a case, `(B, C)`.
            weight: of each class, `(C,)`.
        """
        loss = sums.cross_entropy.new_zeros(())
        self.parts = {}
        if self.lambda_ce:
            ce = sums.cross_entropy.sum()
            if self.reduction == "mean":
                total = (size * weight).sum()
                ce = torch.where(total > 0, ce / total.clamp(min=torch.finfo(torch.float32).tiny), 0)
            loss = loss + self.lambda_ce * ce
            self.parts["ce"] = ce.detach()
        if self.lambda_dice:
            dice = self._dice(sums, size, annotated, weight)
            loss = loss + self.lambda_dice * dice
            self.parts["dice"] = dice.detach()
        return loss

    def _dice(self, sums: VoxelSums, size: torch.Tensor, annotated: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        intersection, prediction = sums.intersection, sums.prediction
        if self.batch:
            intersection, prediction, size = (
                part.sum(dim=0, keepdim=True) for part in (intersection, prediction, size)
            )
            annotated = annotated.any(dim=0, keepdim=True)
        denominator = 2 * (prediction + size - intersection) if self.jaccard else prediction + size
        dice = 1 - (2 * intersection + self.smooth_nr) / (denominator + self.smooth_dr)
        first = 0 if self.include_background else 1
        if dice.shape[1] - first > 1:  # a single class has no weight, as in MONAI
            dice = dice * weight
        counts = annotated[:, first:].to(dice)
        total = (dice[:, first:] * counts).sum()
        return total / counts.sum() if self.reduction == "mean" else total

    def _weight(self, classes: int, logits: torch.Tensor) -> torch.Tensor:
        if self.weight is None:
            return torch.ones(classes, device=logits.device)
        if len(self.weight) != classes:
            problem = f"must hold a number for each of {classes} classes"
            raise ConfigError("DiceCELoss, weight", problem, f"got {len(self.weight)}")
        return self.weight.to(logits.device)

    def _refuse(self, labels: torch.Tensor, wrong: torch.Tensor, names: Sequence[str], classes: int) -> None:
        for name, values, where in zip(names, labels.flatten(1), wrong.to(labels.device), strict=True):
            if bool(where.any()):
                bad = ", ".join(str(value) for value in values[where].unique().tolist()[:5])
                raise LabelError(
                    name,
                    f"labels must lie between 0 and {classes - 1}",
                    f"got {bad} in {int(where.sum())} voxels",
                    "Compare its label map with the network's classes, or pass the value as ignore_index.",
                )


def _require(holds: bool, option: str, rule: str, value: object) -> None:
    if not holds:
        raise ConfigError(f"DiceCELoss, {option}", rule, f"got {value!r}")
