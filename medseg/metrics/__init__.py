"""How well a label map agrees with the truth.

The functions on arrays need NumPy and SciPy alone; the Ignite metrics are loaded when they are first used.
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
    from medseg.metrics.pixels import PixelF1
    from medseg.metrics.scans import ScanDice
    from medseg.metrics.volumes import VolumeDice, VolumeScores

_DOOR = {"PixelF1": "pixels", "ScanDice": "scans", "VolumeDice": "volumes", "VolumeScores": "volumes"}

__all__ = [
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
    if name in _DOOR:
        return getattr(importlib.import_module(f"medseg.metrics.{_DOOR[name]}"), name)
    raise AttributeError(f"module 'medseg.metrics' has no attribute '{name}'")
