"""Data sets on disk: finding them, merging masks, preparing, making phantoms. Nothing here imports torch."""

from medseg.data.layouts import discover
from medseg.data.masks import Merged, merge_masks
from medseg.data.nifti import read_grid, read_volume, write_label_map
from medseg.data.phantom import PhantomSpec, write_phantom
from medseg.data.preparation import open_dataset, prepare
from medseg.data.scans import find_scans, scan_name

__all__ = [
    "Merged",
    "PhantomSpec",
    "discover",
    "find_scans",
    "merge_masks",
    "open_dataset",
    "prepare",
    "read_grid",
    "read_volume",
    "scan_name",
    "write_label_map",
    "write_phantom",
]
