"""One CT series in a folder of DICOM files: refused before its pixels are read unless it is one whole, even grid.

Not MONAI's `ITKReader` or ITK's series reader: of several series these take the first, they average gaps into the
spacing and drop the tilt of a gantry without a word. Not `highdicom.spatial.get_series_volume_positions`: it answers
an irregular series with `(None, None)`, while a user needs to know which files are missing, double or shifted, and
refuses scanner files whose SOPClassUID is empty.
What changes the meaning of the pixels is read for each slice, compared over the series, and applied as pydicom does,
or refused. Objects beside a CT (structure sets, segmentations, doses, reports, captures, localizers) are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.data.dicom_file import SliceHeader, read_header, read_pixels
from medseg.data.scan_rules import finding, refusal
from medseg.errors import DataError
from medseg.findings import Finding
from medseg.grid import Grid

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_IGNORED = {".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".html", ".pdf", ".png", ".jpg", ".jpeg", ".ini", ".db"}
_VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
_UNEVEN = 0.1  # how far a slice may lie from its position on an even grid, as a share of the spacing
_SHIFT_MM = 0.1  # how far a slice may be shifted within its plane
_ANGLE = 1e-3  # how far two direction cosines may differ
_SEPARATE = "Give each series a folder of its own."
# Kinds of CT images whose values are no HU, by ImageType and by RescaleType; the latter may also be empty.
_MAPS = {"MAT_SPECIFIC", "MAT_FRACTIONAL", "MAT_VALUE_BASED", "EFF_ATOMIC_NUM", "ELECTRON_DENSITY", "PERFUSION"}
_CHANGED_HU = {"MAT_REMOVED", "MAT_MODIFIED", "HU_MOD"}  # such as virtual non-contrast images
_HU_TYPES = {"", "HU", "US", "HU_MOD"}  # US: unspecified
_MAX_RESCALE = 1e5
_PADDING_HU = -900.0  # padding above is taken for tissue


@dataclass(frozen=True)
class Series:
    """One CT series on one even grid.

    Args:
        folder: its folder.
        slices: the headers of its files, in the order of the grid's last axis.
        grid: rows run along axis 1, columns along axis 0, slices along axis 2; RAS, mm.
        problems: the rules for scans that it breaks: what was left out, and what is doubtful about its values.
    """

    folder: Path
    slices: tuple[SliceHeader, ...]
    grid: Grid
    problems: tuple[Finding, ...] = ()

    def voxels(self) -> npt.NDArray[Any]:
        """Return the voxels in HU, `(I, J, K)`: int16 where they fit, as those of a CT do.

        Raises:
            DataError: a file is cut short or cannot be decoded.
        """
        volume: npt.NDArray[Any] = np.empty(self.grid.shape, np.int16, order="F")
        for k, header in enumerate(self.slices):
            plane = read_pixels(header)
            if plane.shape != self.grid.shape[:2]:
                raise DataError(header.path, "its pixels do not have the size that its header says", f"{plane.shape}")
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


def holds_slices(folder: Path) -> bool:
    """Return whether files directly in a folder are slices, or damaged, and not only other objects in DICOM."""
    if not holds_dicom(folder):
        return False
    headers = map(read_header, _candidates(folder))
    return any(header is None or not header.kind for header in headers)


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


def open_series(folder: str | Path) -> Series:
    """Read every header in a folder, and no pixels yet.

    Raises:
        DataError: files that are cut short or hold no image, several series, no CT, several frames a file, colors,
            values that are no HU.
        GeometryError: sizes, spacings or orientations that differ, a tilted gantry, slices that are missing, double
            or unevenly spaced, or that lie in different frames of reference.
    """
    folder = Path(folder)
    paths = _candidates(folder) if folder.is_dir() else []
    if not paths:
        raise _refusal("no-slices", folder, "the folder holds no DICOM files")
    slices, objects, broken = [], Counter[str](), []
    for path in paths:
        header = read_header(path)
        if header is None:
            broken.append(path)
        elif header.kind:
            objects[header.kind] += 1
        else:
            slices.append(header)
    volumes = [path for path in broken if path.name.lower().endswith(_VOLUME_SUFFIXES)]
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(objects.items()))
    if volumes and not slices:
        problem = "the folder holds no DICOM files, but other volumes"
        raise _refusal(
            "no-slices", folder, problem, _names(volumes), f"Give the path of a volume, such as {volumes[0]}."
        )
    if broken:
        problem = f"{len(broken)} of {len(paths)} files are cut short or hold no image"
        raise _refusal("file-truncated", folder, problem, _names(broken), "Copy it again, or take these files out.")
    if not slices:
        raise _refusal("no-slices", folder, "the folder holds no slices of a CT", listed)
    _require_one_ct_series(folder, slices)
    findings = _check_values(folder, slices)
    if objects:
        findings.append(finding("dicom-objects", folder, f"left out, for they are no slices of the CT: {listed}"))
    ordered, grid = _on_even_grid(folder, slices)
    return Series(folder, ordered, grid, tuple(findings))


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
        raise _refusal("several-series", folder, f"the folder holds {len(by_series)} series", listed)
    modalities = sorted({header.text("Modality") or "none" for header in headers})
    if modalities != ["CT"]:
        raise _refusal("not-ct", folder, "the series is not a CT", f"Modality {', '.join(modalities)}")
    for keyword, noun in (("FrameOfReferenceUID", "frames of reference"), ("StudyInstanceUID", "studies"),
                          ("PatientID", "patients")):  # fmt: skip
        values = Counter(header.text(keyword) for header in headers)
        if len(values) > 1:
            rare = [header.path for header in headers if header.text(keyword) != values.most_common(1)[0][0]]
            raise _refusal("several-series", folder, f"the slices are of {len(values)} {noun}", _names(rare))


def _check_values(folder: Path, headers: Sequence[SliceHeader]) -> list[Finding]:
    """Return what is doubtful about the values of a series.

    Raises:
        DataError: they are no HU, or it cannot be known.
    """
    for header in headers:
        frames = header.number("NumberOfFrames") or 1
        if frames > 1:
            problem = f"the file holds {frames:.0f} frames (enhanced multi-frame DICOM), not one slice"
            raise _refusal("multi-frame", header.path, problem)
        for problem, applies in _refusals(header).items():
            if applies:
                raise _refusal("dicom-not-hu", header.path, problem)
    unscaled = [h.path for h in headers if h.number("RescaleSlope") is None or h.number("RescaleIntercept") is None]
    findings = []
    if unscaled and (len(unscaled) < len(headers) or any(h.number("PixelRepresentation") == 0 for h in headers)):
        problem = f"{len(unscaled)} of {len(headers)} slices do not say how their values become HU"
        came = f"no RescaleSlope and RescaleIntercept in {_names(unscaled)}"
        raise _refusal("rescale-unknown", folder, problem, came)
    if unscaled:
        message = "no slice has RescaleSlope and RescaleIntercept; the stored values are taken as HU"
        findings.append(finding("rescale-absent", folder, message))
    types = {header.text("ImageType") for header in headers}
    tokens = {token for kind in types for token in kind.split("\\")} | {h.text("RescaleType") for h in headers}
    if tokens & _CHANGED_HU:
        message = f"the scanner changed its HU ({', '.join(sorted(tokens & _CHANGED_HU))})"
        findings.append(finding("hu-changed", folder, message))
    if len(types) > 1:
        message = f"its slices are of {len(types)} kinds (ImageType {', '.join(sorted(types)[:3])})"
        findings.append(finding("slices-differ", folder, message))
    padded = [h for h in headers if _padding(h) > _PADDING_HU]
    if padded:
        message = f"voxels outside the field of view are stored as {_padding(padded[0]):g} HU (PixelPaddingValue)"
        findings.append(finding("padding-dense", folder, message))
    return findings


def _refusals(header: SliceHeader) -> dict[str, bool]:
    """Return, for each problem that makes values anything but HU, whether a slice has it."""
    bits, high, allocated = (header.number(name) for name in ("BitsStored", "HighBit", "BitsAllocated"))
    kind = header.text("RescaleType")
    maps = sorted(_MAPS & set(header.text("ImageType").split("\\")))
    rescale = {key: header.number(key) for key in ("RescaleSlope", "RescaleIntercept") if header.text(key)}
    strange = any(number is None or abs(number) > _MAX_RESCALE for number in rescale.values())
    shifted = bits is not None and (bits > (allocated or 16) or high not in (None, bits - 1))
    return {
        "the file holds colors, not HU": (header.number("SamplesPerPixel") or 1) > 1
        or header.text("PhotometricInterpretation") == "PALETTE COLOR",
        f"its pixels have {bits or 0:g} bits, as a capture of a screen has, and no HU": bits is not None and bits <= 8,
        f"its pixels do not lie in the lowest bits (BitsStored {bits}, HighBit {high})": shifted,
        "its pixels become values through a Modality LUT, not by slope and intercept": "ModalityLUTSequence"
        in header.values,
        f"its values are '{kind}' (RescaleType), not HU": kind not in _HU_TYPES,
        f"it is a map ({', '.join(maps)}), not a CT": bool(maps),
        f"its {' and '.join(rescale)} cannot be those of a CT": strange,
        "its RescaleSlope is 0": header.number("RescaleSlope") == 0,
    }


def _padding(header: SliceHeader) -> float:
    """Return the HU of the padding outside the field of view; minus infinity where there is none."""
    value = header.number("PixelPaddingValue")
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    return -np.inf if value is None else value * (1.0 if slope is None else slope) + (intercept or 0.0)


def _on_even_grid(folder: Path, headers: Sequence[SliceHeader]) -> tuple[tuple[SliceHeader, ...], Grid]:
    """Return the slices in order, and the grid on which they lie."""
    size = _common(folder, headers, ("Rows", "Columns"), 1, "numbers of rows and columns", 0.0)
    spacing = _common(folder, headers, ("PixelSpacing",), 2, "pixel spacings", 1e-4)
    cosines = _common(folder, headers, ("ImageOrientationPatient",), 6, "orientations", _ANGLE)
    # Rows of the image run along the first direction, columns along the second; both in LPS.
    along_row, along_column = cosines[:3], cosines[3:]
    lengths = np.linalg.norm([along_row, along_column], axis=1)
    if min(spacing) <= 0 or abs(lengths - 1).max() > 1e-3 or abs(along_row @ along_column) > 1e-3:
        values = f"pixel spacing {spacing.tolist()}, orientation {cosines.tolist()}"
        problem = "the pixel spacing must be positive and the orientation at right angles"
        raise _refusal("slices-uneven", folder, problem, values)
    normal = np.cross(along_row, along_column)
    normal /= np.linalg.norm(normal)
    positions = _positions(folder, headers)
    depth = positions @ normal
    order = np.argsort(depth, kind="stable")
    slices = tuple(headers[int(k)] for k in order)
    step = _even_step(folder, slices, depth[order])
    in_plane = positions - positions[order[0]] - np.outer(depth - depth[order[0]], normal)
    shift = float(np.linalg.norm(in_plane, axis=1).max())
    if shift > _SHIFT_MM:
        problem = f"the slices are shifted by up to {shift:.3g} mm within their plane (a tilted gantry)"
        raise _refusal("slices-uneven", folder, problem, fix="Resample the series onto a grid without tilt first.")
    affine = np.eye(4)
    affine[:3, 0] = along_row * spacing[1]  # PixelSpacing is between rows, then between columns
    affine[:3, 1] = along_column * spacing[0]
    affine[:3, 2] = normal * step
    affine[:3, 3] = positions[order[0]]
    return slices, Grid((int(size[1]), int(size[0]), len(slices)), LPS_TO_RAS @ affine)


def _common(
    folder: Path, headers: Sequence[SliceHeader], keywords: Sequence[str], count: int, noun: str, tolerance: float
) -> npt.NDArray[np.float64]:
    """Return the numbers in which all slices must agree."""
    rows = []
    for header in headers:
        parts = [header.numbers(keyword, count) for keyword in keywords]
        if any(part is None for part in parts):
            raise _refusal("slices-uneven", header.path, f"the header does not say its {' and '.join(keywords)}")
        rows.append([number for part in parts if part is not None for number in part])
    table = np.array(rows, dtype=np.float64)
    if abs(table - table[0]).max() > tolerance:
        kinds = Counter("\\".join(f"{number:g}" for number in row) for row in table.round(3))
        listed = ", ".join(f"{row} in {times} files" for row, times in kinds.most_common(4))
        raise _refusal("slices-uneven", folder, f"the slices have {len(kinds)} different {noun}", listed, _SEPARATE)
    return np.asarray(table[0])


def _positions(folder: Path, headers: Sequence[SliceHeader]) -> npt.NDArray[np.float64]:
    positions = [header.numbers("ImagePositionPatient", 3) for header in headers]
    without = [header.path for header, position in zip(headers, positions, strict=True) if position is None]
    if without:
        raise _refusal(
            "slices-uneven", folder, f"{len(without)} files do not say where their slice lies", _names(without)
        )
    return np.array(positions, dtype=np.float64)


def _even_step(folder: Path, headers: Sequence[SliceHeader], depth: npt.NDArray[np.float64]) -> float:
    """Return the distance between slices, mm, of headers sorted along the normal."""
    if len(depth) == 1:
        thickness = headers[0].numbers("SliceThickness", 1)
        if thickness is None or thickness[0] <= 0:
            raise _refusal("slices-uneven", folder, "a single slice must say its thickness", "no SliceThickness")
        return thickness[0]
    steps = np.diff(depth)
    usual = float(np.median(steps[steps > 1e-3])) if (steps > 1e-3).any() else 0.0
    doubles = [k for k, step in enumerate(steps) if step <= max(1e-3, 0.05 * usual)]
    if doubles:
        pairs = ", ".join(f"{headers[k].path.name} and {headers[k + 1].path.name}" for k in doubles[:3])
        raise _refusal(
            "slices-uneven", folder, "two slices lie at one position", pairs, f"Take the duplicates out. {_SEPARATE}"
        )
    gaps = [k for k, step in enumerate(steps) if step > 1.5 * usual]
    if gaps:
        parts = [f"{steps[k]:.3g} mm between {headers[k].path.name} and {headers[k + 1].path.name}" for k in gaps[:3]]
        problem = f"slices are missing: most lie {usual:.4g} mm apart"
        raise _refusal("slices-uneven", folder, problem, ", ".join(parts))
    step = float(depth[-1] - depth[0]) / (len(depth) - 1)
    deviation = float(abs(depth - depth[0] - step * np.arange(len(depth))).max())
    if deviation > _UNEVEN * step:
        problem = f"the slices are unevenly spaced, from {steps.min():.4g} to {steps.max():.4g} mm"
        raise _refusal("slices-uneven", folder, problem, fix="Resample the series onto an even grid first.")
    return step


def _refusal(code: str, location: object, problem: str, came: str = "", fix: str = "") -> DataError:
    return refusal(finding(code, location, f"{problem} ({came})" if came else problem, fix))


def _names(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(path.name for path in paths[:3]) + more


def _smallest_dtype(plane: npt.NDArray[Any]) -> np.dtype[Any]:
    """Return the smallest of int16, int32 and float32 that holds the values of a plane."""
    if plane.dtype.kind == "f":
        return np.dtype(np.float32)
    bounds = np.iinfo(np.int16)
    fits = not plane.size or (int(plane.min()) >= bounds.min and int(plane.max()) <= bounds.max)
    return np.dtype(np.int16 if fits else np.int32)
