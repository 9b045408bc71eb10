"""Which layout a folder has, and the data set in it."""

from __future__ import annotations

from pathlib import Path

from medseg.cases import Dataset, read_datalist
from medseg.data import totalsegmentator
from medseg.errors import DataError

DATALIST = "datalist.json"


def discover(root: str | Path) -> Dataset:
    """Find the data set under `root`: a prepared one (`datalist.json`) or the TotalSegmentator layout.

    Args:
        root: the folder, or a datalist itself.

    Raises:
        DataError: nothing is there, or nothing that is known.
    """
    root = Path(root)
    if root.is_file() and root.suffix == ".json":
        return read_datalist(root)
    if not root.is_dir():
        raise DataError(root, "must be a folder with a data set", "a file" if root.exists() else "no such folder")
    if (root / DATALIST).is_file():
        return read_datalist(root / DATALIST)
    if any(totalsegmentator.is_case(folder) for folder in root.iterdir()):
        return totalsegmentator.read(root)
    raise DataError(
        root,
        f"must hold a prepared data set ({DATALIST}) or cases in the TotalSegmentator layout "
        f"(sXXXX/{totalsegmentator.IMAGE}, sXXXX/{totalsegmentator.MASKS}/<structure>.nii.gz)",
        f"{sum(1 for _ in root.iterdir())} entries, none of them a case",
    )
