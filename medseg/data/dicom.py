"""One CT series in a folder of DICOM files: refused before its pixels are read unless it is one whole, even grid.

Not MONAI's `ITKReader` or ITK's series reader: of several series these take the first, they average gaps into the
spacing and drop the tilt of a gantry without a word. Not `highdicom.spatial.get_series_volume_positions`: it answers
an irregular series with `(None, None)`, while a user needs to know which files are missing, double or shifted, and
refuses scanner files whose SOPClassUID is empty.
Headers come from pydicom, pixels from ITK (GDCM), which decodes JPEG, JPEG-LS, JPEG 2000 and RLE.
"""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from medseg.errors import DataError, GeometryError
from medseg.grid import Grid

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_IGNORED = {".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".html", ".pdf", ".png", ".jpg", ".jpeg", ".ini", ".db"}
_VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
_UNEVEN = 0.1  # how far a slice may lie from its position on an even grid, as a share of the spacing
_SHIFT_MM = 0.1  # how far a slice may be shifted within its plane
_ANGLE = 1e-3  # how far two direction cosines may differ
_CONVERT = "Convert the series to NIfTI, for example with dcm2niix."
_SEPARATE = "Give each series a folder of its own."
_COPY_AGAIN = "Copy the series again, or give each volume a folder of its own."
_KEYWORDS = (
    *("SeriesInstanceUID", "SeriesNumber", "Modality", "NumberOfFrames", "SamplesPerPixel", "Rows", "Columns"),
    *("PhotometricInterpretation", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
    *("SliceThickness", "BitsAllocated"),
)
_PIXEL_DATA = 0x7FE00010
_LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"UN")  # two reserved bytes, then a length of four
_UNDEFINED = 0xFFFFFFFF  # the length of compressed pixel data, which comes in items
_DEFLATED = "1.2.840.10008.1.2.1.99"  # all of the file behind its first header is one compressed stream
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


@dataclass(frozen=True)
class SliceHeader:
    """The header of one file.

    Args:
        path: the file.
        values: by DICOM keyword; only those that are set.
    """

    path: Path
    values: Mapping[str, Any]

    def text(self, keyword: str) -> str:
        """Return a value as text; empty where it is not set."""
        return str(self.values.get(keyword, "")).strip(" \0")

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """Return the numbers of a value; None where it is not set or holds anything but `count` finite numbers."""
        value = self.values.get(keyword)
        parts = [value] if isinstance(value, (str, int, float)) else list(value or ())
        try:
            numbers = tuple(float(part) for part in parts)
        except (TypeError, ValueError):
            return None
        return numbers if len(numbers) == count and bool(np.isfinite(numbers).all()) else None


@dataclass(frozen=True)
class Series:
    """One CT series on one even grid.

    Args:
        folder: its folder.
        files: its files, in the order of the grid's last axis.
        grid: rows run along axis 1, columns along axis 0, slices along axis 2; RAS, mm.
    """

    folder: Path
    files: tuple[Path, ...]
    grid: Grid

    def voxels(self) -> npt.NDArray[Any]:
        """Return the voxels in HU, `(I, J, K)`: int16 where they fit, as those of a CT do.

        Raises:
            DataError: a file is cut short or cannot be decoded.
        """
        volume: npt.NDArray[Any] = np.empty(self.grid.shape, np.int16, order="F")
        for k, path in enumerate(self.files):
            plane = _pixels(path)
            if plane.shape != self.grid.shape[:2]:
                raise DataError(path, "its pixels do not have the size that its header says", f"{plane.shape}")
            dtype = _smallest_dtype(plane)
            if not np.can_cast(dtype, volume.dtype):
                volume = volume.astype(np.result_type(dtype, volume.dtype), order="F")
            volume[:, :, k] = plane
        return volume


def is_dicom(path: str | Path) -> bool:
    """Return whether a file begins as DICOM files do."""
    try:
        with Path(path).open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def holds_dicom(folder: str | Path) -> bool:
    """Return whether DICOM files lie directly in a folder."""
    folder = Path(folder)
    return folder.is_dir() and any(is_dicom(path) for path in _candidates(folder))


def _candidates(folder: Path) -> list[Path]:
    """Return the files that must belong to the series: all but hidden files, the index, and notes and exports."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and path.name.upper() not in {"DICOMDIR", "LICENSE", "README", "VERSION"}
        and path.suffix.lower() not in _IGNORED
    ]


def read_dicom(folder: str | Path) -> tuple[npt.NDArray[Any], Grid]:
    """Return the voxels in HU, `(I, J, K)`, and the grid of the one CT series in a folder.

    Raises:
        DataError, GeometryError: see `open_series` and `Series.voxels`.
    """
    series = open_series(folder)
    return series.voxels(), series.grid


def open_series(folder: str | Path) -> Series:
    """Read every header in a folder, and no pixels yet.

    Raises:
        DataError: files that are cut short or hold no image, several series, no CT, several frames a file, colors.
        GeometryError: sizes, spacings or orientations that differ, a tilted gantry, slices that are missing, double
            or unevenly spaced.
    """
    folder = Path(folder)
    paths = _candidates(folder) if folder.is_dir() else []
    if not paths:
        raise DataError(folder, "the folder holds no DICOM files", "", "Give the folder of one DICOM series.")
    headers, broken = [], []
    for path in paths:
        header = _header(path)
        if header is None:
            broken.append(path)
        else:
            headers.append(header)
    volumes = [path for path in broken if path.name.lower().endswith(_VOLUME_SUFFIXES)]
    if volumes and not headers:
        problem = "the folder holds no DICOM files, but other volumes"
        raise DataError(folder, problem, _names(volumes), f"Give the path of a volume, such as {volumes[0]}.")
    if broken:
        problem = f"{len(broken)} of {len(paths)} files are cut short or hold no image"
        raise DataError(folder, problem, _names(broken), "Copy the series again, or take these files out.")
    _require_one_ct_series(folder, headers)
    return _on_even_grid(folder, headers)


def _require_one_ct_series(folder: Path, headers: Sequence[SliceHeader]) -> None:
    by_series: dict[str, list[SliceHeader]] = {}
    for header in headers:
        by_series.setdefault(header.text("SeriesInstanceUID"), []).append(header)
    if len(by_series) > 1:
        descriptions = []
        for members in by_series.values():
            number = members[0].text("SeriesNumber") or "without a number"
            modality = members[0].text("Modality") or "no modality"
            descriptions.append(f"series {number} ({modality}, {len(members)} files)")
        listed = ", ".join(sorted(descriptions)[:8])
        raise DataError(folder, f"the folder holds {len(by_series)} series", listed, _SEPARATE)
    modalities = sorted({header.text("Modality") or "none" for header in headers})
    if modalities != ["CT"]:
        raise DataError(folder, "the series is not a CT", f"Modality {', '.join(modalities)}", "Give a CT series.")
    for header in headers:
        frames, samples = header.numbers("NumberOfFrames", 1), header.numbers("SamplesPerPixel", 1)
        if frames and frames[0] > 1:
            problem = f"the file holds {frames[0]:.0f} frames (enhanced multi-frame DICOM), not one slice"
            raise DataError(header.path, problem, fix=_CONVERT)
        if samples and samples[0] > 1:
            raise DataError(header.path, "the file holds colors, not HU", "", "Give the CT itself, not an image of it.")
        if header.text("PhotometricInterpretation") == "MONOCHROME1":
            # It says that low values are shown white. GDCM inverts them, and every HU would be wrong.
            raise DataError(header.path, "its gray values are stored inverted (MONOCHROME1)", fix=_CONVERT)


def _on_even_grid(folder: Path, headers: Sequence[SliceHeader]) -> Series:
    size = _common(folder, headers, ("Rows", "Columns"), 1, "numbers of rows and columns", 0.0)
    spacing = _common(folder, headers, ("PixelSpacing",), 2, "pixel spacings", 1e-4)
    cosines = _common(folder, headers, ("ImageOrientationPatient",), 6, "orientations", _ANGLE)
    # Rows of the image run along the first direction, columns along the second; both in LPS.
    along_row, along_column = cosines[:3], cosines[3:]
    lengths = np.linalg.norm([along_row, along_column], axis=1)
    if min(spacing) <= 0 or abs(lengths - 1).max() > 1e-3 or abs(along_row @ along_column) > 1e-3:
        values = f"pixel spacing {spacing.tolist()}, orientation {cosines.tolist()}"
        problem = "the pixel spacing must be positive and the orientation at right angles"
        raise GeometryError(folder, problem, values)
    normal = np.cross(along_row, along_column)
    normal /= np.linalg.norm(normal)
    positions = _positions(folder, headers)
    depth = positions @ normal
    order = np.argsort(depth, kind="stable")
    files = tuple(headers[int(k)].path for k in order)
    step = _even_step(folder, [headers[int(k)] for k in order], depth[order])
    in_plane = positions - positions[order[0]] - np.outer(depth - depth[order[0]], normal)
    shift = float(np.linalg.norm(in_plane, axis=1).max())
    if shift > _SHIFT_MM:
        problem = f"the slices are shifted by up to {shift:.3g} mm within their plane (a tilted gantry)"
        raise GeometryError(folder, problem, fix="Resample the series onto a grid without tilt first.")
    affine = np.eye(4)
    affine[:3, 0] = along_row * spacing[1]  # PixelSpacing is between rows, then between columns
    affine[:3, 1] = along_column * spacing[0]
    affine[:3, 2] = normal * step
    affine[:3, 3] = positions[order[0]]
    return Series(folder, files, Grid((int(size[1]), int(size[0]), len(files)), LPS_TO_RAS @ affine))


def _common(
    folder: Path, headers: Sequence[SliceHeader], keywords: Sequence[str], count: int, noun: str, tolerance: float
) -> npt.NDArray[np.float64]:
    """Return the numbers in which all slices must agree."""
    rows = []
    for header in headers:
        parts = [header.numbers(keyword, count) for keyword in keywords]
        if any(part is None for part in parts):
            raise GeometryError(header.path, f"the header does not say its {' and '.join(keywords)}")
        rows.append([number for part in parts if part is not None for number in part])
    table = np.array(rows, dtype=np.float64)
    if abs(table - table[0]).max() > tolerance:
        kinds = Counter("\\".join(f"{number:g}" for number in row) for row in table.round(3))
        listed = ", ".join(f"{row} in {times} files" for row, times in kinds.most_common(4))
        raise GeometryError(folder, f"the slices have {len(kinds)} different {noun}", listed, _SEPARATE)
    return np.asarray(table[0])


def _positions(folder: Path, headers: Sequence[SliceHeader]) -> npt.NDArray[np.float64]:
    positions = [header.numbers("ImagePositionPatient", 3) for header in headers]
    without = [header.path for header, position in zip(headers, positions, strict=True) if position is None]
    if without:
        raise GeometryError(folder, f"{len(without)} files do not say where their slice lies", _names(without))
    return np.array(positions, dtype=np.float64)


def _even_step(folder: Path, headers: Sequence[SliceHeader], depth: npt.NDArray[np.float64]) -> float:
    """Return the distance between slices, mm, of headers sorted along the normal."""
    if len(depth) == 1:
        thickness = headers[0].numbers("SliceThickness", 1)
        if thickness is None or thickness[0] <= 0:
            raise GeometryError(folder, "a single slice must say its thickness", "no SliceThickness")
        return thickness[0]
    steps = np.diff(depth)
    usual = float(np.median(steps[steps > 1e-3])) if (steps > 1e-3).any() else 0.0
    doubles = [k for k, step in enumerate(steps) if step <= max(1e-3, 0.05 * usual)]
    if doubles:
        pairs = ", ".join(f"{headers[k].path.name} and {headers[k + 1].path.name}" for k in doubles[:3])
        raise GeometryError(folder, "two slices lie at one position", pairs, f"Take the duplicates out. {_SEPARATE}")
    gaps = [k for k, step in enumerate(steps) if step > 1.5 * usual]
    if gaps:
        parts = [f"{steps[k]:.3g} mm between {headers[k].path.name} and {headers[k + 1].path.name}" for k in gaps[:3]]
        problem = f"slices are missing: most lie {usual:.4g} mm apart"
        raise GeometryError(folder, problem, ", ".join(parts), _COPY_AGAIN)
    step = float(depth[-1] - depth[0]) / (len(depth) - 1)
    deviation = float(abs(depth - depth[0] - step * np.arange(len(depth))).max())
    if deviation > _UNEVEN * step:
        problem = f"the slices are unevenly spaced, from {steps.min():.4g} to {steps.max():.4g} mm"
        raise GeometryError(folder, problem, fix="Resample the series onto an even grid first.")
    return step


def _names(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(path.name for path in paths[:3]) + more


def _header(path: Path) -> SliceHeader | None:
    """Return the header of a file; None unless the file holds an image to its last byte."""
    import pydicom

    try:
        with path.open("rb") as file, pydicom.config.disable_value_validation():
            header = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(_KEYWORDS))
            little = getattr(header, "original_encoding", (None, True))[1] is not False
            deflated = header.file_meta.get("TransferSyntaxUID") == _DEFLATED
            if not deflated and not _pixels_are_complete(file, "little" if little else "big", path.stat().st_size):
                return None
            # A value that cannot be converted raises when it is fetched.
            return SliceHeader(path, {name: header[name].value for name in _KEYWORDS if name in header})
    except Exception:  # pydicom raises many kinds on bytes that are not DICOM
        return None


def _pixels_are_complete(file: BinaryIO, order: str, size: int) -> bool:
    """Return whether the file goes on to the end of its pixel data; it stands where the element begins."""
    endian: Any = order
    tag = file.read(4)
    if int.from_bytes(tag[:2], endian) << 16 | int.from_bytes(tag[2:], endian) != _PIXEL_DATA:
        return False
    vr = file.read(4)
    length = int.from_bytes(file.read(4) if vr[:2] in _LONG_VRS and vr[2:] == b"\0\0" else vr, endian)
    if length != _UNDEFINED:
        return 0 < length <= size - file.tell()
    while True:  # items of compressed bytes, each with its length, until the sequence ends
        head = file.read(8)
        if head[:4] == _SEQUENCE_END:
            return len(head) == 8
        if head[:4] != _ITEM:
            return False
        file.seek(int.from_bytes(head[4:], "little"), 1)


@functools.cache
def _itk() -> Any:
    """Return ITK with its DICOM reader loaded, which takes seconds.

    Its compiled modules warn of their own types when they are loaded, and crash where warnings are errors.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import itk

        itk.GDCMImageIO.New()
    return itk


def _pixels(path: Path) -> npt.NDArray[Any]:
    """Return the pixels of a file in HU, `(columns, rows)`."""
    itk = _itk()
    try:
        image = itk.imread(str(path), imageio=itk.GDCMImageIO.New())
        pixels: npt.NDArray[Any] = np.asarray(itk.array_view_from_image(image))
    except RuntimeError as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise DataError(path, "the pixels cannot be decoded", reason, "Copy the series again.") from error
    return np.array(pixels.reshape(pixels.shape[-2:]).T)


def _smallest_dtype(plane: npt.NDArray[Any]) -> np.dtype[Any]:
    """Return the smallest of int16, int32 and float32 that holds the values of a plane."""
    if plane.dtype.kind == "f":
        return np.dtype(np.float32)
    bounds = np.iinfo(np.int16)
    fits = not plane.size or (int(plane.min()) >= bounds.min and int(plane.max()) <= bounds.max)
    return np.dtype(np.int16 if fits else np.int32)
