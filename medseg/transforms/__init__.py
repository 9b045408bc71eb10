"""Transforms that MONAI does not have; each says why."""

from medseg.transforms.batch import AugmentBatch, RandAugmentd
from medseg.transforms.fit_plane import FitPlaned
from medseg.transforms.overlaps import MultiHotd
from medseg.transforms.pictures import LoadSliced
from medseg.transforms.scale_window import ScaleWindowd
from medseg.transforms.slices import IndexSlicesd, RandSlicePatchd
from medseg.transforms.spacing import Spacingd
from medseg.transforms.standardize import Standardize, Standardized
from medseg.transforms.window import WindowHUd

__all__ = [
    "AugmentBatch",
    "FitPlaned",
    "IndexSlicesd",
    "LoadSliced",
    "MultiHotd",
    "RandAugmentd",
    "RandSlicePatchd",
    "ScaleWindowd",
    "Spacingd",
    "Standardize",
    "Standardized",
    "WindowHUd",
]
