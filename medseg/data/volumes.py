"""Volumes on disk, whatever their format (NIfTI, NRRD, MetaImage, a DICOM folder): find, name and read them.

The only place that knows which format a path has: training, evaluation, prediction and MONAI Label read through it
and see the same voxels. Axes and affines come as they are stored, in RAS; nothing is turned or resampled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.data import nifti
from medseg.data.dicom import holds_dicom, holds_slices, is_dicom, open_series
from medseg.data.layouts.totalsegmentator import image_of, is_case
from medseg.data.nrrd_mha import open_raw
from medseg.data.scan_rules import admit, log_warnings
from medseg.errors import DataError
from medseg.file_names import NIFTI, VOLUMES, composed, entries, has_suffix, name_key, stem, walk
from medseg.findings import Finding
from medseg.grid import Grid
from medseg.image_io_2d import is_image_2d

_GENERIC = {"ct", "image", "img", "scan", "volume"}


def is_volume_file(path: str | Path) -> bool:
    """Return whether a file is named as a volume.

    Example:
        >>> is_volume_file("scan.nii.gz"), is_volume_file("scan.NRRD"), is_volume_file("scan.png")
        (True, True, False)
    """
    return has_suffix(path, VOLUMES)


@dataclass(frozen=True, eq=False)
class Scan:
    """Hold a volume that was read.

    Args:
        voxels: `(I, J, K)`, scaled as the file says (HU for a CT).
        grid: where they lie; RAS, mm.
        warnings: what the rules for scans have to say of it.
    """

    voxels: npt.NDArray[Any]
    grid: Grid
    warnings: tuple[Finding, ...] = ()


def read_scan(path: str | Path, accept: Sequence[str] = ()) -> Scan:
    """Read a volume once and strictly, by the rules of `medseg.data.scan_rules`.

    Args:
        path: a NIfTI, NRRD or MetaImage file, or a folder with one DICOM series.
        accept: codes of the rules that the user accepts.

    Raises:
        DataError: it is missing, cut short, damaged, or holds anything but one finite number a voxel.
        GeometryError: it is not one 3D volume on an even grid, or its geometry breaks a rule that is not accepted.
    """
    path = Path(path)
    if path.is_dir():
        series = open_series(path)
        return Scan(series.voxels(), series.grid, admit(series.problems, accept))
    return Scan(*_read(path))


def read_volume(path: str | Path, accept: Sequence[str] = ()) -> tuple[npt.NDArray[Any], Grid]:
    """Return the voxels `(I, J, K)` of a volume and where they lie, and log its warnings; see `read_scan`.

    Example:
        >>> voxels, grid = read_volume("scan.nii.gz")  # doctest: +SKIP
    """
    scan = read_scan(path, accept)
    log_warnings(scan.warnings)
    return scan.voxels, scan.grid


def _read(path: Path) -> tuple[npt.NDArray[Any], Grid]:
    if _is_raw(path):
        raw = open_raw(path)
        return raw.voxels(), raw.grid
    return nifti.read_nifti(_require_file_of_volume(path))


def read_grid(path: str | Path) -> Grid:
    """Read where a volume lies, from its header or headers alone.

    Raises:
        DataError, GeometryError: see `read_volume`.
    """
    path = Path(path)
    if path.is_dir():
        return open_series(path).grid
    if _is_raw(path):
        return open_raw(path).grid
    return nifti.read_nifti_grid(_require_file_of_volume(path))


def require_finite(voxels: npt.NDArray[Any], path: object) -> None:
    """Refuse voxels that are NaN or infinite.

    Raises:
        DataError: there are such voxels.
    """
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        count = int(np.count_nonzero(~np.isfinite(voxels)))
        raise DataError(path, f"{count:,} voxels are NaN or infinite", fix="Replace them, for example by -1024 HU.")


def _is_raw(path: Path) -> bool:
    return has_suffix(path, VOLUMES) and not has_suffix(path, NIFTI) and path.is_file()


def _require_file_of_volume(path: Path) -> Path:
    if not is_volume_file(path) and is_dicom(path):
        raise DataError(path, "this is a single DICOM file, not a volume", fix="Give the folder of the series.")
    return path


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

    In a folder of the TotalSegmentator layout these are the CTs, in any other every volume file directly in it.

    Args:
        inputs: files and folders.
        dicom: whether folders with DICOM files are scans, too; all of them below a folder without volume files that
            hold slices of a scan, so not those of a structure set.
        recursive: whether the volume files in all folders below are scans, too.

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
    files = [file for file in entries(path) if is_volume_file(file)]
    series = [path] if dicom and holds_dicom(path) else []
    if series and (cases or files):
        raise DataError(path, "the folder holds both volume files and DICOM files", "", "Put them into two folders.")
    below = [] if series or cases or (files and not recursive) else walk(path)
    deeper = [file for file in below if file.parent != path and is_volume_file(file)]
    if recursive:
        files += deeper
    if dicom and not files:
        series = series or [folder for folder in sorted({file.parent for file in below}) if holds_slices(folder)]
    if not (cases or files or series):
        formats = ", ".join(VOLUMES) + (", DICOM" if dicom else "")
        fix = f"{len(deeper)} lie in folders below, such as {deeper[0]}: add --recursive." if deeper else ""
        raise DataError(path, "the folder holds no scans", formats, fix)
    return series or cases or files
