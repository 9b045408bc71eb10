"""Transforms that MONAI does not have; each says why."""

from medseg.transforms.overlaps import MultiHotd
from medseg.transforms.slices import IndexSlicesd, RandSlicePatchd
from medseg.transforms.window import WindowHUd

__all__ = ["IndexSlicesd", "MultiHotd", "RandSlicePatchd", "WindowHUd"]
