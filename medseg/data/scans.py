"""Scans to segment: find them, and name their masks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from medseg.data.dicom import holds_dicom, is_dicom
from medseg.data.layouts.totalsegmentator import IMAGE, is_case
from medseg.data.nifti import stem
from medseg.data.volumes import SUFFIXES, is_volume_file
from medseg.errors import DataError
from medseg.image_io_2d import is_image_2d

_GENERIC = {"ct", "image", "img", "scan", "volume"}


def scan_name(path: str | Path) -> str:
    """Return the name of a scan's mask: the file's name, or its folder's if the file's is generic.

    Example:
        >>> scan_name("clinic/patient7.nii.gz"), scan_name("s0000/ct.nii.gz")
        ('patient7', 's0000')
    """
    path = Path(path)
    name = path.resolve().name if path.is_dir() else stem(path)
    parent = path.resolve().parent.name
    return parent if name.lower() in _GENERIC and parent else name


def holds_pictures(path: str | Path) -> bool:
    """Return whether a path is a 2D image (PNG and the like), or a folder of them with no scan in it or below it."""
    path = Path(path)
    if not path.is_dir():
        return is_image_2d(path)
    files = [file for file in path.rglob("*") if file.is_file()]
    images = [file for file in files if is_image_2d(file)]
    if not images or any(is_volume_file(file) for file in files):
        return False
    return not any(is_dicom(file) for file in files if not is_image_2d(file))


def find_scans(inputs: str | Path | Iterable[str | Path], dicom: bool = False) -> list[Path]:
    """Find scans: files as they are, folders by what lies in them.

    In a folder of the TotalSegmentator layout these are the CTs, in any other every volume file directly in it.

    Args:
        inputs: files and folders.
        dicom: whether folders with DICOM files are scans, too; all of them below a folder without volume files.

    Raises:
        DataError: a path that does not exist, a folder without scans or with volumes and DICOM files mixed, or two
            scans of one name.
    """
    scans: list[Path] = []
    for entry in [inputs] if isinstance(inputs, (str, Path)) else inputs:
        path = Path(entry)
        if path.is_dir():
            scans += _in_folder(path, dicom)
        elif not path.exists():
            raise DataError(path, "no such file or folder")
        elif dicom and not is_volume_file(path) and is_dicom(path):
            raise DataError(path, "this is a single DICOM file, not a volume", "", "Give the folder of the series.")
        else:
            scans.append(path)
    by_name: dict[str, Path] = {}
    for scan in scans:
        namesake = by_name.setdefault(scan_name(scan).lower(), scan)
        if namesake.resolve() != scan.resolve():
            raise DataError(
                scan,
                f"its mask would have the same name as that of {namesake}",
                f"'{scan_name(scan)}'",
                "Rename one, or segment them into different folders.",
            )
    return list(by_name.values())


def _in_folder(path: Path, dicom: bool) -> list[Path]:
    cases = [folder / IMAGE for folder in [path, *sorted(path.iterdir())] if is_case(folder)]
    files = [file for file in sorted(path.iterdir()) if is_volume_file(file)]
    series = [path] if dicom and holds_dicom(path) else []
    if series and (cases or files):
        raise DataError(path, "the folder holds both volume files and DICOM files", "", "Put them into two folders.")
    if dicom and not (series or cases or files):
        series = [folder for folder in sorted(path.rglob("*")) if holds_dicom(folder)]
    if not (cases or files or series):
        formats = ", ".join(SUFFIXES) + (", DICOM" if dicom else "")
        raise DataError(path, f"the folder holds no scans ({formats})")
    return series or cases or files
