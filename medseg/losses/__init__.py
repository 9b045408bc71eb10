"""Losses for many classes, and for cases that are annotated in part."""

from medseg.losses.dice_ce import DiceCELoss
from medseg.losses.marginal import MarginalLoss

__all__ = ["DiceCELoss", "MarginalLoss"]
