"""Transforms that MONAI does not have; each says why."""

from medseg.transforms.batch import AugmentBatch, RandAugmentd
from medseg.transforms.chains import evaluation_chain, training_chain
from medseg.transforms.overlaps import MultiHotd
from medseg.transforms.pictures import LoadSlice2Dd
from medseg.transforms.resize import ResizeKeepAspectd
from medseg.transforms.scale_window import ScaleWindowd
from medseg.transforms.slices import IndexSlicesd, RandSlicePatchd
from medseg.transforms.spacing import Spacingd
from medseg.transforms.standardize import Standardize, Standardized
from medseg.transforms.window import WindowHUd

__all__ = [
    "AugmentBatch",
    "IndexSlicesd",
    "LoadSlice2Dd",
    "MultiHotd",
    "RandAugmentd",
    "RandSlicePatchd",
    "ResizeKeepAspectd",
    "ScaleWindowd",
    "Spacingd",
    "Standardize",
    "Standardized",
    "WindowHUd",
    "evaluation_chain",
    "training_chain",
]
