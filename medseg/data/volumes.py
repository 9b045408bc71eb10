"""Volumes on disk, whatever their format: NIfTI, NRRD, MetaImage, or a folder with one DICOM series.

The only place that knows which format a path has: training, evaluation, prediction and MONAI Label read through it
and see the same voxels. Axes and affines come as they are stored, in RAS; nothing is turned or resampled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.data import nifti
from medseg.data.dicom import is_dicom, open_series
from medseg.data.nrrd_mha import META_SUFFIXES, NRRD_SUFFIXES, open_raw
from medseg.errors import DataError
from medseg.grid import Grid

SUFFIXES = (*nifti.SUFFIXES, *NRRD_SUFFIXES, *META_SUFFIXES)


def is_volume_file(path: str | Path) -> bool:
    """Return whether a file is named as a volume.

    Example:
        >>> is_volume_file("scan.nii.gz"), is_volume_file("scan.NRRD"), is_volume_file("scan.png")
        (True, True, False)
    """
    return str(path).lower().endswith(SUFFIXES)


def read_volume(path: str | Path) -> tuple[npt.NDArray[Any], Grid]:
    """Read a volume once and strictly.

    Args:
        path: a NIfTI, NRRD or MetaImage file, or a folder with one DICOM series.

    Returns:
        The voxels `(I, J, K)`, scaled as the file says (HU for a CT), and where they lie (RAS, mm).

    Raises:
        DataError: it is missing, cut short, damaged, or holds anything but one number a voxel.
        GeometryError: it is not one 3D volume on an even grid.

    Example:
        >>> voxels, grid = read_volume("scan.nii.gz")  # doctest: +SKIP
    """
    path = Path(path)
    if path.is_dir():
        series = open_series(path)
        return series.voxels(), series.grid
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
    return str(path).lower().endswith((*NRRD_SUFFIXES, *META_SUFFIXES)) and path.is_file()


def _require_file_of_volume(path: Path) -> Path:
    if not is_volume_file(path) and is_dicom(path):
        raise DataError(path, "this is a single DICOM file, not a volume", fix="Give the folder of the series.")
    return path
