"""Scans to segment: finding them, and naming what comes out after them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from medseg.data.nifti import SUFFIXES, stem
from medseg.data.totalsegmentator import IMAGE, is_case
from medseg.errors import DataError

_GENERIC = {"ct", "image", "img", "scan", "volume"}


def scan_name(path: str | Path) -> str:
    """What a scan's mask is called: the file's name, or its folder's where the file's says nothing.

    >>> scan_name("clinic/patient7.nii.gz"), scan_name("s0000/ct.nii.gz")
    ('patient7', 's0000')
    """
    path = Path(path)
    name = stem(path)
    parent = path.resolve().parent.name
    return parent if name.lower() in _GENERIC and parent else name


def find_scans(inputs: str | Path | Iterable[str | Path]) -> list[Path]:
    """The NIfTI files that are meant: files as they are, folders by what lies in them.

    In a folder of the TotalSegmentator layout these are the CTs, otherwise every NIfTI file directly in it.

    Raises:
        DataError: a path that does not exist, a folder without scans, or two scans of one name.
    """
    found: list[Path] = []
    for given in [inputs] if isinstance(inputs, (str, Path)) else inputs:
        path = Path(given)
        if path.is_dir():
            cases = [folder / IMAGE for folder in [path, *sorted(path.iterdir())] if is_case(folder)]
            files = [file for file in sorted(path.iterdir()) if file.name.lower().endswith(SUFFIXES)]
            if not cases and not files:
                raise DataError(path, "must hold scans (.nii.gz or .nii)", "none")
            found += cases or files
        elif path.exists():
            found.append(path)
        else:
            raise DataError(path, "must be a scan or a folder of scans", "no such file")
    names: dict[str, Path] = {}
    for file in found:
        twin = names.setdefault(scan_name(file).lower(), file)
        if twin.resolve() != file.resolve():
            raise DataError(
                file,
                "needs a name of its own, for its mask is called after it",
                f"'{scan_name(file)}' for {twin}, too",
                "Rename one, or segment them into different folders.",
            )
    return list(names.values())
