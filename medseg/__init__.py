"""medseg: train, run and share medical image segmentation as MONAI bundles.

Everything here is loaded when it is first used, so that importing medseg costs nothing.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.api import load, segment, train
    from medseg.bundle import BatchPredictor, Bundle, Prediction, Predictor, run_bundle
    from medseg.bundle.share import install_bundle, pack_bundle
    from medseg.bundle.verify import verify_bundle
    from medseg.cases import Case, DatasetIndex, Split
    from medseg.data import PrepareConfig, check_dataset, discover, merge_masks, open_dataset, prepare, write_phantom
    from medseg.errors import MedsegError
    from medseg.evaluation import evaluate
    from medseg.grid import Grid
    from medseg.inference import StreamingInferer
    from medseg.inspection import inspect_bundle
    from medseg.labels import LabelMap
    from medseg.metrics import dice_by_structure
    from medseg.networks import SegFormer
    from medseg.runs import Run

__version__ = "0.1.0"

# torch's threads spin while they wait for each other; beside other work on the machine a step then takes several
# times as long. A short spin costs nothing on an idle machine (docs/benchmarks/learning.md). Only libgomp reads this
# variable, once, when torch is imported; `medseg.training.share_cores` helps where that was before.
if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

_DOOR = {
    "BatchPredictor": "medseg.bundle",
    "Bundle": "medseg.bundle",
    "Case": "medseg.cases",
    "DatasetIndex": "medseg.cases",
    "Grid": "medseg.grid",
    "LabelMap": "medseg.labels",
    "MedsegError": "medseg.errors",
    "Prediction": "medseg.bundle",
    "Predictor": "medseg.bundle",
    "PrepareConfig": "medseg.data",
    "Run": "medseg.runs",
    "SegFormer": "medseg.networks",
    "Split": "medseg.cases",
    "StreamingInferer": "medseg.inference",
    "check_dataset": "medseg.data",
    "dice_by_structure": "medseg.metrics",
    "discover": "medseg.data",
    "evaluate": "medseg.evaluation",
    "inspect_bundle": "medseg.inspection",
    "install_bundle": "medseg.bundle.share",
    "load": "medseg.api",
    "merge_masks": "medseg.data",
    "open_dataset": "medseg.data",
    "pack_bundle": "medseg.bundle.share",
    "prepare": "medseg.data",
    "run_bundle": "medseg.bundle",
    "segment": "medseg.api",
    "train": "medseg.api",
    "verify_bundle": "medseg.bundle.verify",
    "write_phantom": "medseg.data",
}

__all__ = [
    "BatchPredictor",
    "Bundle",
    "Case",
    "DatasetIndex",
    "Grid",
    "LabelMap",
    "MedsegError",
    "Prediction",
    "Predictor",
    "PrepareConfig",
    "Run",
    "SegFormer",
    "Split",
    "StreamingInferer",
    "check_dataset",
    "dice_by_structure",
    "discover",
    "evaluate",
    "inspect_bundle",
    "install_bundle",
    "load",
    "merge_masks",
    "open_dataset",
    "pack_bundle",
    "prepare",
    "run_bundle",
    "segment",
    "train",
    "verify_bundle",
    "write_phantom",
]


_ROOMS = {
    "bundle",
    "data",
    "evaluation",
    "inference",
    "losses",
    "metrics",
    "monitoring",
    "networks",
    "report",
    "training",
    "transforms",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:  # so that configs need one line only: "$import medseg"
        return importlib.import_module(f"medseg.{name}")
    if name in _DOOR:
        return getattr(importlib.import_module(_DOOR[name]), name)
    raise AttributeError(f"module 'medseg' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
