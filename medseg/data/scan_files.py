"""Find the scans that a user names: files, folders of files, cases of data sets, DICOM series, folders of 2D images."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from medseg.data.dicom import holds_dicom, holds_slices, is_dicom
from medseg.data.layouts.totalsegmentator import image_of, is_case
from medseg.data.volumes import is_volume_file
from medseg.errors import DataError
from medseg.file_names import VOLUMES, composed, entries, files_by_name, name_key, stem, walk
from medseg.image_io_2d import is_image_2d

logger = logging.getLogger(__name__)

_GENERIC = {"ct", "image", "img", "scan", "volume"}


def scan_name(path: str | Path) -> str:
    """Return the name of a scan's mask: the file's name, or its folder's if the file's is generic.

    Example:
        >>> scan_name("clinic/patient7.nii.gz"), scan_name("s0000/ct.nii.gz")
        ('patient7', 's0000')
    """
    path = Path(path)
    name = composed(path.resolve().name) if path.is_dir() else stem(path)
    parent = path.resolve().parent.name
    return parent if name.lower() in _GENERIC and parent else name


def holds_images_2d(path: str | Path) -> bool:
    """Return whether a path is a 2D image (PNG and the like), or a folder of them with no scan in it or below it."""
    path = Path(path)
    if not path.is_dir():
        return is_image_2d(path)
    files = walk(path)
    images = [file for file in files if is_image_2d(file)]
    if not images or any(is_volume_file(file) for file in files):
        return False
    return not any(is_dicom(file) for file in files if not is_image_2d(file))


def find_scans(inputs: str | Path | Iterable[str | Path], dicom: bool = False, recursive: bool = False) -> list[Path]:
    """Find scans: files as they are, folders by what lies in them.

    In a folder of the TotalSegmentator layout these are the CTs, in any other every volume file directly in it. What
    is passed over in folders below is logged.

    Args:
        inputs: files and folders.
        dicom: whether folders with DICOM files are scans, too; all of them below a folder without volume files that
            hold slices of a scan, so not those of a structure set.
        recursive: whether the volume files in all folders below are scans, too, and DICOM slices beside them; not the
            label maps of `labelsTr` beside `imagesTr`, `masks` beside `images` and the like.

    Raises:
        DataError: a path that does not exist, a folder without scans or with volumes and DICOM files mixed, or two
            scans of one name.
    """
    scans: list[Path] = []
    for entry in [inputs] if isinstance(inputs, (str, Path)) else inputs:
        path = Path(entry)
        if path.is_dir():
            scans += _in_folder(path, dicom, recursive)
        elif not path.exists():
            raise DataError(path, "no such file or folder")
        elif dicom and not is_volume_file(path) and is_dicom(path):
            raise DataError(path, "this is a single DICOM file, not a volume", "", "Give the folder of the series.")
        else:
            scans.append(path)
    return without_namesakes(scans)


def without_namesakes(scans: Iterable[Path]) -> list[Path]:
    """Return scans, each once, whose masks have names of their own.

    Raises:
        DataError: two scans of one name.
    """
    by_name: dict[str, Path] = {}
    for scan in scans:
        namesake = by_name.setdefault(name_key(scan_name(scan)), scan)
        if namesake.resolve() != scan.resolve():
            raise DataError(
                scan,
                f"its mask would have the same name as that of {namesake}",
                f"'{scan_name(scan)}'",
                "Rename one, or segment them into different folders.",
            )
    return list(by_name.values())


def _in_folder(path: Path, dicom: bool, recursive: bool) -> list[Path]:
    cases = [image_of(folder) for folder in [path, *entries(path)] if is_case(folder)]
    for image in cases:
        files_by_name(image.parent)  # refuses ct.nii beside ct.nii.gz
    files = [file for file in entries(path) if is_volume_file(file)]
    series = [path] if dicom and holds_dicom(path) else []
    if series and (cases or files):
        raise DataError(path, "the folder holds both volume files and DICOM files", "", "Put them into two folders.")
    below = [] if series or cases or (files and not recursive) else walk(path)
    deeper = [file for file in below if file.parent != path and is_volume_file(file)]
    labels = [file for file in deeper if _holds_labels(file.parent)]
    if recursive:
        files += [file for file in deeper if file not in labels]
        _log_passed_over(path, labels, "label maps beside images", "Name their folder to segment them.")
    if dicom and (recursive or not files):
        series = series or [folder for folder in sorted({file.parent for file in below}) if holds_slices(folder)]
        if series and not recursive:
            _log_passed_over(path, deeper, "volume files in folders below", "Add --recursive to segment them, too.")
    elif dicom:
        folders = [folder for folder in entries(path) if folder.is_dir() and holds_dicom(folder)]
        _log_passed_over(path, folders, "folders with DICOM files", "Add --recursive to segment them, too.")
    if not (cases or files or series):
        formats = ", ".join(VOLUMES) + (", DICOM" if dicom else "")
        fix = f"{len(deeper)} lie in folders below, such as {deeper[0]}: add --recursive." if deeper else ""
        raise DataError(path, "the folder holds no scans", formats, fix)
    return cases or files + series


def _holds_labels(folder: Path) -> bool:
    """Return whether a folder is `labelsTr` beside `imagesTr`, `masks` beside `images`, or the like."""
    name = folder.name.lower()
    prefix = next((word for word in ("labels", "masks") if name.startswith(word)), None)
    return prefix is not None and any(
        sibling.name.lower() == name.replace(prefix, "images", 1) for sibling in entries(folder.parent)
    )


def _log_passed_over(path: Path, paths: Sequence[Path], kind: str, fix: str) -> None:
    if paths:
        logger.warning("%s: %d %s are passed over, such as %s. %s", path, len(paths), kind, paths[0], fix)
