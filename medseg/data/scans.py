"""Scans to segment: finding them, and naming what comes out after them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy.typing as npt

from medseg.data.dicom import holds_dicom, is_dicom, open_series, read_dicom
from medseg.data.nifti import SUFFIXES, read_grid, read_volume, stem
from medseg.data.totalsegmentator import IMAGE, is_case
from medseg.errors import DataError
from medseg.grid import Grid
from medseg.image_io_2d import is_picture

_GENERIC = {"ct", "image", "img", "scan", "volume"}


def scan_name(path: str | Path) -> str:
    """What a scan's mask is called: the file's name, or its folder's where the file's says nothing.

    >>> scan_name("clinic/patient7.nii.gz"), scan_name("s0000/ct.nii.gz")
    ('patient7', 's0000')
    """
    path = Path(path)
    name = path.resolve().name if path.is_dir() else stem(path)
    parent = path.resolve().parent.name
    return parent if name.lower() in _GENERIC and parent else name


def read_scan(path: str | Path) -> tuple[npt.NDArray[Any], Grid]:
    """The voxels `(I, J, K)` and the grid of a scan: a NIfTI file, or a folder with one DICOM series.

    Raises:
        DataError, GeometryError: see `read_volume` and `read_dicom`.
    """
    return read_dicom(path) if Path(path).is_dir() else read_volume(_no_slice(path))


def scan_grid(path: str | Path) -> Grid:
    """The grid of a scan, from its header or headers alone.

    Raises:
        DataError, GeometryError: see `read_grid` and `open_series`.
    """
    return open_series(path).grid if Path(path).is_dir() else read_grid(_no_slice(path))


def holds_pictures(path: str | Path) -> bool:
    """Whether a path is a picture (PNG and the like), or a folder with pictures and no scan in it or below it."""
    path = Path(path)
    if not path.is_dir():
        return is_picture(path)
    files = [one for one in path.rglob("*") if one.is_file()]
    if any(one.name.lower().endswith(SUFFIXES) for one in files) or not any(is_picture(one) for one in files):
        return False
    return not any(is_dicom(one) for one in files if not is_picture(one))


def find_scans(inputs: str | Path | Iterable[str | Path], dicom: bool = False) -> list[Path]:
    """The scans that are meant: files as they are, folders by what lies in them.

    In a folder of the TotalSegmentator layout these are the CTs, otherwise every NIfTI file directly in it.

    Args:
        inputs: files and folders.
        dicom: whether folders with DICOM files are scans, too; all of them below a folder without NIfTI files.

    Raises:
        DataError: a path that does not exist, a folder without scans, or with NIfTI and DICOM files mixed, or two
            scans of one name.
    """
    found: list[Path] = []
    for given in [inputs] if isinstance(inputs, (str, Path)) else inputs:
        path = Path(given)
        if path.is_dir():
            found += _in_folder(path, dicom)
        elif path.exists():
            found.append(_no_slice(path) if dicom else path)
        else:
            raise DataError(path, "must be a scan or a folder of scans", "no such file")
    names: dict[str, Path] = {}
    for file in found:
        contralateral = names.setdefault(scan_name(file).lower(), file)
        if contralateral.resolve() != file.resolve():
            raise DataError(
                file,
                "needs a name of its own, for its mask is called after it",
                f"'{scan_name(file)}' for {contralateral}, too",
                "Rename one, or segment them into different folders.",
            )
    return list(names.values())


def _in_folder(path: Path, dicom: bool) -> list[Path]:
    cases = [folder / IMAGE for folder in [path, *sorted(path.iterdir())] if is_case(folder)]
    files = [file for file in sorted(path.iterdir()) if file.name.lower().endswith(SUFFIXES)]
    series = [path] if dicom and holds_dicom(path) else []
    if series and (cases or files):
        raise DataError(path, "must hold NIfTI files or one DICOM series", "both", "Give each a folder of its own.")
    if dicom and not (series or cases or files):
        series = [folder for folder in sorted(path.rglob("*")) if holds_dicom(folder)]
    if not (cases or files or series):
        kinds = ".nii.gz, .nii" + (" or a DICOM series" if dicom else "")
        raise DataError(path, f"must hold scans ({kinds})", "none")
    return series or cases or files


def _no_slice(path: str | Path) -> Path:
    """The file itself, unless it is one slice of a DICOM series."""
    if not str(path).lower().endswith(SUFFIXES) and is_dicom(path):
        raise DataError(path, "must be a whole scan", "one DICOM file", "Give the folder of the series.")
    return Path(path)
