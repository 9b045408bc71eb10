"""Data sets on disk: find, check, merge masks, prepare, convert, make phantoms.

Only `VolumeReader`, loaded when it is first used, imports MONAI and torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medseg.data.case_list import read_exclude, write_exclude
from medseg.data.check import DatasetReport, check_dataset
from medseg.data.classes import choose_labels
from medseg.data.convert_dataset import Converted, convert
from medseg.data.datasets import open_dataset, training_items
from medseg.data.dicom import Series, open_series
from medseg.data.layouts import discover
from medseg.data.masks import Merged, merge_masks
from medseg.data.nifti_writer import write_label_map
from medseg.data.phantom import PhantomSpec, write_phantom
from medseg.data.prepare_cases import PrepareConfig, Prepared, prepare
from medseg.data.scan_files import find_scans, scan_name
from medseg.data.slice_items import slice_items
from medseg.data.slice_phantom import SlicePhantomSpec, write_slice_phantom
from medseg.data.store import StoredCase, StoredVolume, read_store
from medseg.data.volumes import read_grid, read_volume

if TYPE_CHECKING:
    from medseg.data.volume_reader import VolumeReader

__all__ = [
    "Converted",
    "DatasetReport",
    "Merged",
    "PhantomSpec",
    "PrepareConfig",
    "Prepared",
    "Series",
    "SlicePhantomSpec",
    "StoredCase",
    "StoredVolume",
    "VolumeReader",
    "check_dataset",
    "choose_labels",
    "convert",
    "discover",
    "find_scans",
    "merge_masks",
    "open_dataset",
    "open_series",
    "prepare",
    "read_exclude",
    "read_grid",
    "read_store",
    "read_volume",
    "scan_name",
    "slice_items",
    "training_items",
    "write_exclude",
    "write_label_map",
    "write_phantom",
    "write_slice_phantom",
]


def __getattr__(name: str) -> Any:
    if name == "VolumeReader":  # configs name it so; importing it here would load torch for every data job
        from medseg.data.volume_reader import VolumeReader

        return VolumeReader
    raise AttributeError(f"module 'medseg.data' has no attribute '{name}'")
