"""Which layout a folder has, and the data set in it."""

from __future__ import annotations

from pathlib import Path

from medseg.cases import DatasetIndex, read_datalist
from medseg.data import folders, nnunet, slices, totalsegmentator
from medseg.errors import DataError

DATALIST = "datalist.json"

_KNOWN = (
    f"{DATALIST} (a prepared set), "
    f"{nnunet.DESCRIPTION} with {nnunet.IMAGES_TR} and {nnunet.LABELS_TR} (nnU-Net raw, Decathlon), "
    f"sXXXX/{totalsegmentator.IMAGE} with sXXXX/{totalsegmentator.MASKS}/<structure>.nii.gz (TotalSegmentator), "
    f"slices as PNG in {slices.IMAGES}/ and {slices.MASKS[0]}/, below train/ and valid/ or not, or in Kaggle's way, "
    f"or {folders.IMAGES}/ with {folders.LABELS[0]}/ and {folders.NAMES}"
)


def discover(root: str | Path, patient: str | None = None) -> DatasetIndex:
    """Find the data set under `root`, in whichever layout it is. Only names and JSON are read, no image.

    Args:
        root: a prepared set, a TotalSegmentator folder, a raw nnU-Net folder, a folder of the Medical
            Segmentation Decathlon, plain folders paired by name; 2D slices; or a datalist itself.
        patient: of slices: a pattern that finds the patient in a picture's name; see `medseg.data.slices.read`.

    Raises:
        DataError: nothing is there, nothing that is known, or files that do not fit together.
        LabelError: names of structures that are none.
    """
    root = Path(root)
    if root.is_file() and root.suffix == ".json":
        return _described(root)
    if not root.is_dir():
        raise DataError(root, "must be a folder with a data set", "a file" if root.exists() else "no such folder")
    for name in (DATALIST, nnunet.DESCRIPTION):
        if (root / name).is_file():
            return _described(root / name)
    if any(totalsegmentator.is_case(folder) for folder in root.iterdir()):
        return totalsegmentator.read(root)
    if slices.is_dataset(root):
        return slices.read(root, patient)
    if folders.is_dataset(root):
        return folders.read(root)
    inside = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    found = f"{len(inside)} entries, {', '.join(inside[:4])} among them" if inside else "an empty folder"
    raise DataError(root, f"must hold a data set in one of these layouts: {_KNOWN}", found)


def discover_volumes(root: str | Path) -> DatasetIndex:
    """The data set under `root`, which must be one of volumes.

    Raises:
        DataError: it is one of 2D slices; or see `discover`.
    """
    dataset = discover(root)
    if dataset.palette is not None:
        raise DataError(
            root, "must hold volumes, for slices need no preparation", "2D slices", "Train on the folder itself."
        )
    return dataset


def _described(path: Path) -> DatasetIndex:
    """The data set that a JSON file describes, in nnU-Net's words or the Decathlon's."""
    if path.name == nnunet.DESCRIPTION and nnunet.is_description(nnunet.read_json(path)):
        return nnunet.read(path.parent)
    return read_datalist(path)
