"""Compare label maps with the truth.

The functions on arrays need NumPy and SciPy alone; the metrics of torch and Ignite are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from medseg.metrics.gi_tract import GITractScores, gi_tract_score, gi_tract_scores
from medseg.metrics.overlap import (
    Overlap,
    annotated_classes,
    confusion_matrix,
    dice,
    dice_by_structure,
    multilabel_dice,
    multilabel_overlap,
    overlap_scores,
)
from medseg.metrics.structures import StructureScores, measure_names, structure_scores
from medseg.metrics.surface import Surfaces, surface_distances

if TYPE_CHECKING:
    from medseg.metrics.dice_score import DiceScore
    from medseg.metrics.ignite_metrics import PixelF1, ScanDice, VolumeDice, VolumeScores

_LAZY = {
    "DiceScore": "dice_score",
    "PixelF1": "ignite_metrics",
    "ScanDice": "ignite_metrics",
    "VolumeDice": "ignite_metrics",
    "VolumeScores": "ignite_metrics",
}

__all__ = [
    "DiceScore",
    "GITractScores",
    "Overlap",
    "PixelF1",
    "ScanDice",
    "StructureScores",
    "Surfaces",
    "VolumeDice",
    "VolumeScores",
    "annotated_classes",
    "confusion_matrix",
    "dice",
    "dice_by_structure",
    "gi_tract_score",
    "gi_tract_scores",
    "measure_names",
    "multilabel_dice",
    "multilabel_overlap",
    "overlap_scores",
    "structure_scores",
    "surface_distances",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"medseg.metrics.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'medseg.metrics' has no attribute '{name}'")
