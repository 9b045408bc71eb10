"""Find the data set in a folder, in any of the layouts that are known."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from medseg.cases import DatasetIndex
from medseg.data.layouts import datalist, folders, kaggle, nnunet, slices, totalsegmentator
from medseg.data.layouts.listed_cases import Listing, read_json, repeated_ids
from medseg.data.layouts.nearest import describe_unknown
from medseg.errors import DataError


def discover(
    root: str | Path,
    patient: str | None = None,
    exclude: Collection[str] = (),
    binarize: float | None = None,
    accept: Sequence[str] = (),
) -> DatasetIndex:
    """Find the data set under `root`, in whichever layout it is. Only names and tables are read, no image.

    Args:
        root: a prepared set, a TotalSegmentator folder, a raw nnU-Net folder, a folder of the Medical
            Segmentation Decathlon, plain folders paired by name; 2D slices; or a datalist itself.
        patient: of 2D slices: a pattern that finds the patient in an image's name, see `slices.collect`.
        exclude: ids of cases to leave out; nothing that is wrong with them is an error.
        binarize: takes masks that hold more than 0 and 1, see `medseg.data.masks.binary_mask`.
        accept: takes scans that break a rule, by its code, see `medseg.data.scan_rules`.

    Raises:
        DataError: there is no data set, its files do not fit together, or a patient is in two subsets of its split.
        LabelError: a structure or class whose name is unknown.
    """
    root = Path(root)
    if not root.is_dir() and not (root.is_file() and root.suffix == ".json"):
        if root.exists():
            raise DataError(root, "this file is no data set", "", "Give a folder, or a datalist (.json).")
        raise DataError(root, "there is no such folder")
    listing = collect(root, patient)
    if listing is None:
        raise DataError(root, "the folder holds no data set", *describe_unknown(root, collect))
    return listing.to_index(exclude, binarize, accept)


def discover_volumes(
    root: str | Path, exclude: Collection[str] = (), binarize: float | None = None, accept: Sequence[str] = ()
) -> DatasetIndex:
    """Find the data set under `root`, which must be one of volumes.

    Raises:
        DataError: it consists of 2D slices; or see `discover`.
    """
    dataset = discover(root, exclude=exclude, binarize=binarize, accept=accept)
    if dataset.class_colors is not None:
        problem = "the data set consists of 2D slices, which need no preparation"
        raise DataError(root, problem, "", "Train on the folder itself.")
    return dataset


def collect(root: Path, patient: str | None = None) -> Listing | None:
    """List what a folder, or the folder of a datalist, holds; None if it is in no known layout.

    Raises:
        ConfigError: `patient` is no regular expression.
        DataError, LabelError: a layout was recognized, but what names its cases or labels cannot be used.
    """
    listing = _collect(root, patient)
    if listing is not None:
        listing.findings += repeated_ids(listing.cases)
    return listing


def _collect(root: Path, patient: str | None) -> Listing | None:
    described = [root] if root.is_file() else [root / datalist.NAME, root / nnunet.DESCRIPTION]
    for path in described:
        if path.is_file():
            content = read_json(path)
            if path.name == nnunet.DESCRIPTION and isinstance(content, dict) and nnunet.is_description(content):
                return nnunet.collect(path.parent, content)
            return datalist.collect(path, content)
    return (
        totalsegmentator.collect(root)
        or kaggle.collect(root, patient)
        or slices.collect(root, patient)
        or folders.collect(root)
    )
