"""Transforms that MONAI does not have; each says why."""

from medseg.transforms.batch import AugmentBatch, RandAugmentd
from medseg.transforms.overlaps import MultiHotd
from medseg.transforms.pictures import LoadSliced
from medseg.transforms.slices import IndexSlicesd, RandSlicePatchd
from medseg.transforms.spacing import Spacingd
from medseg.transforms.window import WindowHUd

__all__ = [
    "AugmentBatch",
    "IndexSlicesd",
    "LoadSliced",
    "MultiHotd",
    "RandAugmentd",
    "RandSlicePatchd",
    "Spacingd",
    "WindowHUd",
]
