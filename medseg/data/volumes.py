"""Volumes on disk, whatever their format (NIfTI, NRRD, MetaImage, a DICOM folder).

The only place that knows which format a path has: training, evaluation, prediction and MONAI Label read through it
and see the same voxels. Axes and affines come as they are stored, in RAS; nothing is turned or resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.volumeutils import apply_read_scaling

from medseg.data import nifti
from medseg.data.checks.geometry import check_grid, check_spacing
from medseg.data.dicom import Series, is_dicom, open_series
from medseg.data.nrrd_mha import RawVolume, open_raw
from medseg.data.scan_rules import admit, finding, log_warnings
from medseg.errors import DataError
from medseg.file_names import NIFTI, VOLUMES, has_suffix
from medseg.findings import Finding
from medseg.grid import Grid


def is_volume_file(path: str | Path) -> bool:
    """Return whether a file is named as a volume.

    Example:
        >>> is_volume_file("scan.nii.gz"), is_volume_file("scan.NRRD"), is_volume_file("scan.png")
        (True, True, False)
    """
    return has_suffix(path, VOLUMES)


@dataclass(frozen=True, eq=False)
class Stored:
    """Hold a volume as it is stored.

    Args:
        path: the file, or the folder of the series.
        grid: where the voxels lie; RAS, mm.
        raw: the voxels before scaling, `(I, J, K)`.
        problems: the rules for scans that header and voxels break.
        slope: what stored values are multiplied by.
        intercept: what is then added.
    """

    path: Path
    grid: Grid
    raw: npt.NDArray[Any]
    problems: tuple[Finding, ...] = ()
    slope: float = 1.0
    intercept: float = 0.0

    def scaled(self, part: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return stored values as HU, or labels, in the byte order of this machine."""
        scaled: npt.NDArray[Any] = np.asanyarray(apply_read_scaling(part, self.slope, self.intercept))
        return scaled.astype(scaled.dtype.newbyteorder("="), copy=False)


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
    volume = read_stored(path)
    warnings = admit(volume.problems, accept)
    return Scan(volume.scaled(volume.raw), volume.grid, warnings)


def read_volume(path: str | Path, accept: Sequence[str] = ()) -> tuple[npt.NDArray[Any], Grid]:
    """Return the voxels `(I, J, K)` of a volume and where they lie, and log its warnings; see `read_scan`.

    Example:
        >>> voxels, grid = read_volume("scan.nii.gz")  # doctest: +SKIP
    """
    scan = read_scan(path, accept)
    log_warnings(scan.warnings)
    return scan.voxels, scan.grid


def read_grid(path: str | Path, accept: Sequence[str] = ()) -> Grid:
    """Read where a volume lies, from its header or headers alone.

    Raises:
        DataError, GeometryError: see `read_scan`.
    """
    return read_header(path, accept)[0]


def read_header(path: str | Path, accept: Sequence[str] = ()) -> tuple[Grid, tuple[Finding, ...]]:
    """Return where a volume lies and the warnings of its header or headers, see `read_scan`."""
    grid, problems = _header(_opened(Path(path)), path)
    return grid, admit(problems, accept)


def read_stored(path: str | Path) -> Stored:
    """Read a volume as it is stored, and all that the rules have to say of it, which refuses nothing.

    Raises:
        DataError, GeometryError: it cannot be read at all.
    """
    path = Path(path)
    opened = _opened(path)
    grid, problems = _header(opened, path)
    scaling = (1.0, 0.0)
    if isinstance(opened, nifti.NiftiHeader):
        raw, scaling = opened.stored(), (opened.slope, opened.intercept)
    else:
        raw = opened.voxels()
    return Stored(path, grid, raw, (*problems, *_check_finite(raw, path)), *scaling)


_NOT_SCANS = (".md", ".txt", ".json", ".csv", ".pdf", ".zip", ".npy", ".py")


def _opened(path: Path) -> nifti.NiftiHeader | RawVolume | Series:
    """Read the header or headers of a volume."""
    if path.is_dir():
        return open_series(path)
    if has_suffix(path, VOLUMES) and not has_suffix(path, NIFTI):
        return open_raw(path)
    if not is_volume_file(path) and is_dicom(path):
        raise DataError(path, "this is a single DICOM file, not a volume", fix="Give the folder of the series.")
    if path.suffix in _NOT_SCANS and path.is_file():
        fix = "Give a NIfTI, NRRD or MetaImage file, or a folder with one series of DICOM files."
        raise DataError(path, "this file is no volume", f"its name ends with {path.suffix}", fix)
    return nifti.open_nifti(path)


def _header(opened: nifti.NiftiHeader | RawVolume | Series, path: str | Path) -> tuple[Grid, list[Finding]]:
    """Return where an opened volume lies, and the rules that its header breaks."""
    return opened.grid, _with_grid(opened.problems, opened.grid, path)


def _with_grid(problems: Sequence[Finding], grid: Grid, name: object) -> list[Finding]:
    unplaced = any(problem.code == "no-geometry" for problem in problems)
    return [*problems, *(check_spacing if unplaced else check_grid)(grid, name)]


def check_array(
    voxels: npt.NDArray[Any], grid: Grid, name: object, accept: Sequence[str] = (), problems: Sequence[Finding] = ()
) -> Scan:
    """Apply the rules to a volume that is in memory; see `read_scan`.

    Args:
        voxels: `(I, J, K)`.
        grid: where they lie.
        name: the name in errors.
        accept: codes of the rules that the user accepts.
        problems: the rules that its header breaks.
    """
    return Scan(voxels, grid, admit([*_with_grid(problems, grid, name), *_check_finite(voxels, name)], accept))


def _check_finite(voxels: npt.NDArray[Any], path: object) -> list[Finding]:
    if voxels.dtype.kind != "f" or np.isfinite(voxels).all():
        return []
    count = int(np.count_nonzero(~np.isfinite(voxels)))
    return [finding("nan", path, f"{count:,} voxels are NaN or infinite")]
