"""One CT series in a folder of DICOM files: what is not one whole, even grid is refused before it is read.

Not MONAI's `ITKReader` or ITK's series reader: of several series these take the first, they average gaps into the
spacing and drop the tilt of a gantry without a word. Headers and voxels come from ITK (GDCM), file by file; order,
spacing and frame are decided here.
"""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import DataError, GeometryError
from medseg.grid import Grid

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_BESIDE = {".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".html", ".pdf", ".png", ".jpg", ".jpeg", ".ini", ".db"}
_PLACE = 0.1  # how far a slice may lie from its place on an even grid, in parts of the spacing
_STRAIGHT = 0.1  # how far a slice may be shifted within its plane, mm
_TURNED = 1e-3  # how far two directions may differ


@dataclass(frozen=True)
class Slice:
    """What the header of one file says.

    Args:
        path: the file.
        tags: values by tag, `"0008|0060"` and so on, as text; only those that are there.
    """

    path: Path
    tags: Mapping[str, str]

    def numbers(self, tag: str, count: int) -> tuple[float, ...] | None:
        """The numbers of a tag; None where it is absent or holds anything else."""
        try:
            found = tuple(float(part) for part in self.tags.get(tag, "").split("\\"))
        except ValueError:
            return None
        return found if len(found) == count and bool(np.isfinite(found).all()) else None


_SERIES, _MODALITY, _FRAMES, _COLOURS = "0020|000e", "0008|0060", "0028|0008", "0028|0002"
_ROWS, _COLUMNS, _SPACING = "0028|0010", "0028|0011", "0028|0030"
_POSITION, _ORIENTATION, _THICKNESS, _NUMBER = "0020|0032", "0020|0037", "0018|0050", "0020|0011"
_READ = (
    _SERIES, _MODALITY, _FRAMES, _COLOURS, _ROWS, _COLUMNS, _SPACING, _POSITION, _ORIENTATION, _THICKNESS, _NUMBER,
)  # fmt: skip


@dataclass(frozen=True)
class Series:
    """One CT series on one even grid.

    Args:
        folder: where it lies.
        files: its files, in the order of the grid's last axis.
        grid: rows run along axis 1, columns along axis 0, slices along axis 2; RAS, mm.
    """

    folder: Path
    files: tuple[Path, ...]
    grid: Grid

    def voxels(self) -> npt.NDArray[Any]:
        """The voxels in HU, `(I, J, K)`: int16 where they fit, as CT does.

        Raises:
            DataError: a file is cut short or cannot be decoded; names it.
        """
        volume: npt.NDArray[Any] = np.empty(self.grid.shape, np.int16, order="F")
        for k, path in enumerate(self.files):
            plane = _plane(path)
            if plane.shape != self.grid.shape[:2]:
                raise DataError(path, f"must hold {self.grid.shape[:2]} pixels, as its header says", f"{plane.shape}")
            kind = _kind(plane)
            if not np.can_cast(kind, volume.dtype):
                volume = volume.astype(np.result_type(kind, volume.dtype), order="F")
            volume[:, :, k] = plane
        return volume


def is_dicom(path: str | Path) -> bool:
    """Whether a file begins as DICOM files do."""
    try:
        with Path(path).open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def holds_dicom(folder: str | Path) -> bool:
    """Whether DICOM files lie directly in a folder."""
    folder = Path(folder)
    return folder.is_dir() and any(is_dicom(path) for path in _candidates(folder))


def _candidates(folder: Path) -> list[Path]:
    """The files that must belong to the series: all but hidden ones, the index, and what people lay beside."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and path.name.upper() not in {"DICOMDIR", "LICENSE", "README", "VERSION"}
        and path.suffix.lower() not in _BESIDE
    ]


def read_dicom(folder: str | Path) -> tuple[npt.NDArray[Any], Grid]:
    """The voxels in HU, `(I, J, K)`, and the grid of the one CT series in a folder.

    Raises:
        DataError, GeometryError: see `open_series` and `Series.voxels`.
    """
    series = open_series(folder)
    return series.voxels(), series.grid


def open_series(folder: str | Path) -> Series:
    """Look at every header in a folder; no voxel is read yet.

    Raises:
        DataError: files that are cut short or no image, several series, no CT, several frames a file, colours.
        GeometryError: sizes, spacings or orientations that differ, a tilted gantry, slices that are missing,
            there twice, or unevenly spaced.
    """
    folder = Path(folder)
    paths = _candidates(folder) if folder.is_dir() else []
    if not paths:
        raise DataError(folder, "must be a folder with the files of one DICOM series", "none")
    headers = [_header(path) for path in paths]
    broken = [path for path, header in zip(paths, headers, strict=True) if header is None]
    if broken:
        raise DataError(
            folder,
            "must hold whole DICOM images only",
            f"{len(broken)} of {len(paths)} files cut short or without an image: {_names(broken)}",
            "Copy the series again, or take these files out.",
        )
    slices = [header for header in headers if header is not None]
    _one_ct_series(folder, slices)
    return _on_a_grid(folder, slices)


def _one_ct_series(folder: Path, slices: Sequence[Slice]) -> None:
    by_series = Counter(one.tags.get(_SERIES, "") for one in slices)
    if len(by_series) > 1:
        parts = []
        for uid, count in by_series.items():
            first = next(one for one in slices if one.tags.get(_SERIES, "") == uid)
            number = first.tags.get(_NUMBER) or "without a number"
            parts.append(f"series {number} ({first.tags.get(_MODALITY) or 'no modality'}, {count} files)")
        raise DataError(
            folder,
            "must hold one series",
            f"{len(parts)}: {', '.join(sorted(parts)[:8])}",
            "Give each series a folder of its own.",
        )
    kinds = sorted({one.tags.get(_MODALITY) or "none" for one in slices})
    if kinds != ["CT"]:
        raise DataError(folder, "must be a CT (Modality CT)", f"Modality {', '.join(kinds)}", "Give a CT series.")
    for one in slices:
        if int((one.numbers(_FRAMES, 1) or (1,))[0]) > 1:
            raise DataError(
                one.path,
                "must hold one slice a file",
                f"{one.tags[_FRAMES]} frames (enhanced multi-frame DICOM)",
                "Convert it to NIfTI first, for example with dcm2niix.",
            )
        if int((one.numbers(_COLOURS, 1) or (1,))[0]) > 1:
            raise DataError(one.path, "must hold HU", "colours", "Give the CT itself, not a picture of it.")


def _on_a_grid(folder: Path, slices: Sequence[Slice]) -> Series:
    size, spacing, turn = (_common(folder, slices, *one) for one in (
        ((_ROWS, _COLUMNS), 1, "rows and columns", 0.0),
        ((_SPACING,), 2, "pixel spacing", 1e-4),
        ((_ORIENTATION,), 6, "orientation", _TURNED),
    ))  # fmt: skip
    across, along = turn[:3], turn[3:]
    if min(spacing) <= 0 or abs(np.linalg.norm([across, along], axis=1) - 1).max() > 1e-3 or abs(across @ along) > 1e-3:
        raise GeometryError(
            folder,
            "needs a positive pixel spacing and an orientation at right angles",
            f"pixel spacing {spacing.tolist()}, orientation {turn.tolist()}",
        )
    normal = np.cross(across, along)
    normal /= np.linalg.norm(normal)
    places = _common_positions(folder, slices)
    depth = places @ normal
    order = np.argsort(depth, kind="stable")
    files = tuple(slices[int(k)].path for k in order)
    step = _even_step(folder, [slices[int(k)] for k in order], depth[order])
    aside = places - places[order[0]] - np.outer(depth - depth[order[0]], normal)
    shift = float(np.linalg.norm(aside, axis=1).max())
    if shift > _STRAIGHT:
        raise GeometryError(
            folder,
            "must have its slices straight above one another",
            f"slices shifted by up to {shift:.3g} mm within their plane (a tilted gantry)",
            "Resample it onto a grid without tilt first.",
        )
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = across * spacing[1], along * spacing[0], normal * step
    affine[:3, 3] = places[order[0]]
    return Series(folder, files, Grid((int(size[1]), int(size[0]), len(files)), _LPS_TO_RAS @ affine))


def _common(
    folder: Path, slices: Sequence[Slice], tags: Sequence[str], count: int, what: str, tolerance: float
) -> npt.NDArray[np.float64]:
    """The numbers that all slices must agree in."""
    rows = []
    for one in slices:
        found = [one.numbers(tag, count) for tag in tags]
        if any(part is None for part in found):
            raise GeometryError(one.path, f"must say its {what}", "nothing of it in its header")
        rows.append([number for part in found if part is not None for number in part])
    table = np.array(rows, dtype=np.float64)
    apart = abs(table - table[0]).max()
    if apart > tolerance:
        kinds = Counter("\\".join(f"{number:g}" for number in row) for row in table.round(3))
        seen = ", ".join(f"{row} in {times} files" for row, times in kinds.most_common(4))
        raise GeometryError(folder, f"must have one {what}", f"{len(kinds)}: {seen}", "Give one volume a folder.")
    return np.asarray(table[0])


def _common_positions(folder: Path, slices: Sequence[Slice]) -> npt.NDArray[np.float64]:
    found = [one.numbers(_POSITION, 3) for one in slices]
    without = [one.path for one, location in zip(slices, found, strict=True) if location is None]
    if without:
        raise GeometryError(
            folder, "must say where each slice lies", f"no position in {len(without)} files: {_names(without)}"
        )
    return np.array(found, dtype=np.float64)


def _even_step(folder: Path, slices: Sequence[Slice], depth: npt.NDArray[np.float64]) -> float:
    """The distance between slices, mm, sorted along the normal."""
    if len(depth) == 1:
        thickness = slices[0].numbers(_THICKNESS, 1)
        if thickness is None or thickness[0] <= 0:
            raise GeometryError(folder, "needs more than one slice, or one that says its thickness", "neither")
        return thickness[0]
    steps = np.diff(depth)
    usual = float(np.median(steps[steps > 1e-3])) if (steps > 1e-3).any() else 0.0
    contralaterals = [k for k, step in enumerate(steps) if step <= max(1e-3, 0.05 * usual)]
    if contralaterals:
        pairs = ", ".join(f"{slices[k].path.name} and {slices[k + 1].path.name}" for k in contralaterals[:3])
        raise GeometryError(
            folder,
            "must hold each slice once",
            f"two at one place: {pairs}",
            "Take the duplicates out, or give each volume a folder.",
        )
    holes = [k for k, step in enumerate(steps) if step > 1.5 * usual]
    if holes:
        parts = [f"{steps[k]:.3g} mm between {slices[k].path.name} and {slices[k + 1].path.name}" for k in holes[:3]]
        raise GeometryError(
            folder,
            f"must have a slice every {usual:.4g} mm",
            ", ".join(parts),
            "Copy the series again: slices are missing, or it is several volumes.",
        )
    step = float(depth[-1] - depth[0]) / (len(depth) - 1)
    off = float(abs(depth - depth[0] - step * np.arange(len(depth))).max())
    if off > _PLACE * step:
        raise GeometryError(
            folder,
            "must have evenly spaced slices",
            f"distances from {steps.min():.4g} to {steps.max():.4g} mm",
            "Resample it onto an even grid first.",
        )
    return step


def _names(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(path.name for path in paths[:3]) + more


@functools.cache
def _itk() -> Any:
    """ITK, with what reads DICOM loaded; takes seconds, so only who meets DICOM pays for it.

    Its compiled modules warn of their own types when they are loaded, and crash where warnings are errors.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import itk

        itk.GDCMImageIO.New()
    return itk


def _header(path: Path) -> Slice | None:
    """What the header of a file says; None where ITK finds no whole image in it."""
    reader = _itk().GDCMImageIO.New()
    try:
        if not reader.CanReadFile(str(path)):
            return None
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    found = reader.GetMetaDataDictionary()
    return Slice(path, {tag: str(found[tag]).strip(" \0") for tag in _READ if found.HasKey(tag)})


def _plane(path: Path) -> npt.NDArray[Any]:
    """The pixels of a file in HU, `(columns, rows)`."""
    itk = _itk()
    try:
        image = itk.imread(str(path), imageio=itk.GDCMImageIO.New())
        pixels: npt.NDArray[Any] = np.asarray(itk.array_view_from_image(image))
    except RuntimeError as error:
        why = str(error).strip().rpartition("\n")[2]
        raise DataError(path, "must be a whole and readable DICOM file", why, "Copy the series again.") from error
    return np.array(pixels.reshape(pixels.shape[-2:]).T)


def _kind(plane: npt.NDArray[Any]) -> np.dtype[Any]:
    """The smallest of int16, int32 and float32 that holds the values of a plane."""
    if plane.dtype.kind == "f":
        return np.dtype(np.float32)
    bounds = np.iinfo(np.int16)
    fits = not plane.size or (int(plane.min()) >= bounds.min and int(plane.max()) <= bounds.max)
    return np.dtype(np.int16 if fits else np.int32)
