"""How well a label map agrees with the truth."""

from medseg.metrics.overlap import VolumeDice, confusion_matrix, dice, dice_by_structure, multilabel_dice

__all__ = ["VolumeDice", "confusion_matrix", "dice", "dice_by_structure", "multilabel_dice"]
