"""Transforms that MONAI does not have; each says why."""

from medseg.transforms.batch import AugmentBatch, RandAugmentd
from medseg.transforms.chains import MultiHotd, evaluation_chain, training_chain
from medseg.transforms.intensities import ScaleWindowd, Standardize, Standardized, WindowHUd
from medseg.transforms.load_slices import LoadSlice2Dd
from medseg.transforms.resample import ResizeKeepAspectd, Spacingd
from medseg.transforms.slice_patches import IndexSlicesd, RandSlicePatchd

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
