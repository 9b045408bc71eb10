"""Data sets on disk: finding them, merging masks, preparing, making phantoms. Nothing here imports torch."""

from medseg.data.check import DatasetReport, check_dataset
from medseg.data.conversion import Converted, convert
from medseg.data.exclude import read_exclude, write_exclude
from medseg.data.layouts import discover
from medseg.data.masks import Merged, merge_masks
from medseg.data.nifti import read_grid, read_volume, write_label_map
from medseg.data.opening import open_dataset, training_items
from medseg.data.phantom import PhantomSpec, write_phantom
from medseg.data.preparation import Preparation, Prepared, prepare
from medseg.data.scans import find_scans, scan_name
from medseg.data.store import StoredCase, StoredVolume, read_store

__all__ = [
    "Converted",
    "DatasetReport",
    "Merged",
    "PhantomSpec",
    "Preparation",
    "Prepared",
    "StoredCase",
    "StoredVolume",
    "check_dataset",
    "convert",
    "discover",
    "find_scans",
    "merge_masks",
    "open_dataset",
    "prepare",
    "read_exclude",
    "read_grid",
    "read_store",
    "read_volume",
    "scan_name",
    "training_items",
    "write_exclude",
    "write_label_map",
    "write_phantom",
]
