"""NIfTI files: read strictly, by nibabel's parser of headers and the rules of `medseg.data.scan_rules`.

Not `nibabel.load`: it corrects what contradicts itself (a negative pixdim, a code that does not exist, a vox_offset
of 0) and logs that without the name of the file.
"""

from __future__ import annotations

import gzip
import io
import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from medseg.data.gzip_io import cut_short, damaged, read_decompressed
from medseg.data.scan_rules import finding, refusal
from medseg.errors import GeometryError
from medseg.file_names import stem
from medseg.findings import Finding
from medseg.grid import Grid

_SILENT = logging.Logger("medseg.silent")  # of no hierarchy: logging.config would enable it again
_SILENT.addHandler(logging.NullHandler())
_GZIP, _LFS = b"\x1f\x8b", b"version https://git-lfs"
_HEAD = 544  # bytes of the larger header, and the flag behind it that says whether extensions follow
_MOST_EXTENSIONS = 1 << 24  # bytes of them that are read
_FORMS_MM = 0.05  # sform and qform are single precision; beyond this they are two answers
_UNITS = {0: ("", 1.0), 1: ("meters", 1000.0), 2: ("", 1.0), 3: ("microns", 0.001)}  # by the NIfTI code, and in mm
_NO_IMAGE = (*range(2, 25), *range(1004, 1012), 2002, 2003, 2004)  # intent codes: statistics, matrices, vectors, colors
_KNOWN = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"PK\x03\x04", "a zip archive"),
    (b"%PDF", "a PDF"),
    (b"NRRD", "an NRRD volume"),
    (b"\x89HDF", "an HDF5 file"),
    (b"ObjectType", "a MetaImage header"),
)


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """Hold what the header of a file says.

    Args:
        path: the file.
        fields: nibabel's header, as it stands in the file, with its extensions; nothing is corrected.
        grid: where the voxels lie, by the sform, or else the qform; RAS, mm.
        shape: of the stored array: the grid's, and perhaps further axes of length 1.
        dtype: of the stored voxels.
        offset: bytes before them.
        slope: what stored values are multiplied by.
        intercept: what is then added.
        problems: the rules that it breaks.
    """

    path: Path
    fields: Any
    grid: Grid
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    problems: tuple[Finding, ...]

    def stored(self) -> npt.NDArray[Any]:
        """Return the voxels as stored, `(I, J, K)`, in the file's own (Fortran) order.

        Raises:
            DataError: the file is cut short, its compressed bytes are damaged, or their checksum does not agree.
        """
        return np.ndarray(self.grid.shape, self.dtype, buffer=self.content(), offset=self.offset, order="F")

    def content(self) -> bytes | bytearray:
        """Return the bytes of the file, decompressed and complete, see `stored`."""
        expected = self.offset + int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        content = read_decompressed(self.path, expected)
        if len(content) < expected:
            raise cut_short(self.path, len(content), expected)
        return content


def open_nifti(path: str | Path) -> NiftiHeader:
    """Read and check the header of a NIfTI file; its voxels are not read yet.

    Raises:
        DataError: it is missing, empty, not in NIfTI format, or its header cannot be read.
        GeometryError: it does not hold a volume, or its affine cannot be used.
    """
    path = Path(path)
    head, kind = _head(path)
    try:
        fields = kind(head[: kind.sizeof_hdr], check=False)
        offset = int(fields["vox_offset"])
        if head[kind.sizeof_hdr] and kind.sizeof_hdr + 4 < offset < _MOST_EXTENSIONS:
            fields = kind.from_fileobj(io.BytesIO(_begin(path, offset)), check=False)
        fixed = fields.copy()
        fixed["vox_offset"] = max(offset, kind.sizeof_hdr + 4)  # nibabel's own message names a level, not the field
        fixed.check_fix(logger=_SILENT)
        shape, dtype = fields.get_data_shape(), fields.get_data_dtype()
        slope, intercept = fields.get_slope_inter()
        if np.isinf(fields["scl_slope"]):  # nibabel takes it for no slope at all
            raise ValueError("scl_slope is infinite")
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, error) from error
    except Exception as error:  # nibabel raises many kinds for one thing: an invalid header
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise refusal(finding("file-header", path, f"its header cannot be read: {reason}")) from error
    if not 0 < int(fields["dim"][0]) < 8 or min(shape) < 1:
        raise refusal(finding("file-header", path, f"its header gives the shape {tuple(map(int, shape))}"))
    problems = []
    if offset == 0 and not head[kind.sizeof_hdr]:
        offset = kind.sizeof_hdr + 4
        message = f"its vox_offset is 0; its voxels are read from byte {offset}, behind the header"
        problems.append(finding("vox-offset", path, message))
    if offset < kind.sizeof_hdr:
        message = f"its voxels would begin inside the header (vox_offset {offset})"
        raise refusal(finding("file-header", path, message))
    if dtype.kind not in "iuf":
        code, content = ("rgb", f"colors ({''.join(dtype.names)})") if dtype.names else ("complex", f"{dtype} numbers")
        raise refusal(finding(code, path, f"the voxels are {content}"))
    if len(shape) < 3 or max(shape[3:], default=1) > 1:
        raise refusal(finding("not-3d", path, f"a scan must be a 3D volume, not of shape {tuple(map(int, shape))}"))
    if int(fields["intent_code"]) in _NO_IMAGE:
        message = f"its header says that its values are no image (intent_code {int(fields['intent_code'])})"
        problems.append(finding("intent", path, message))
    grid = _grid(path, fields, fixed, (int(shape[0]), int(shape[1]), int(shape[2])), problems)
    scaling = (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
    return NiftiHeader(path, fields, grid, tuple(map(int, shape)), dtype, offset, *scaling, tuple(problems))


def _begin(path: Path, count: int) -> bytes:
    """Return the first bytes of a file, decompressed if it is gzip."""
    with path.open("rb") as file:
        if file.read(2) == _GZIP:
            file.seek(0)
            with gzip.open(file) as stream:
                return stream.read(count)
        file.seek(0)
        return file.read(count)


def _head(path: Path) -> tuple[bytes, Any]:
    """Return the first bytes of a file, decompressed, and nibabel's class of its header."""
    name = path.name.lower()
    if not path.exists():
        raise refusal(finding("file-missing", path, "no such file"))
    try:
        with path.open("rb") as file:
            first = file.read(64)
        head = _begin(path, _HEAD)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise damaged(path, error) from error
    except OSError as error:
        message = f"the file cannot be opened: {error.strerror or error}"
        raise refusal(finding("file-unreadable", path, message)) from error
    if not first:
        raise refusal(finding("file-empty", path, "the file is empty"))
    if first.startswith(_LFS):
        raise refusal(finding("file-pointer", path, "the file is only a Git-LFS pointer"))
    kind = _header_class(head)
    if name.endswith((".hdr", ".img")) or (kind is not None and not kind.is_single):
        raise refusal(finding("file-pair", path, "its header and its voxels are two files, as Analyze had it"))
    if kind is None:
        content = "an Analyze file" if 348 in _sizes(head) else describe_bytes(head)
        raise refusal(finding("file-not-image", path, f"the file is not in NIfTI format, but {content}"))
    if first.startswith(_GZIP) != name.endswith(".gz"):
        message, right = ("compressed, but its name does not end in .gz", stem(path) + ".nii.gz")
        if name.endswith(".gz"):
            message, right = ("not compressed, but its name ends in .gz", stem(path) + ".nii")
        raise refusal(finding("file-name", path, f"the file is {message}", f"Rename it to {right}."))
    return head, kind


def _sizes(head: bytes) -> tuple[int, int]:
    return int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")


def _header_class(head: bytes) -> Any:
    """Return the nibabel class of the header that a file begins with; None if it is no NIfTI."""
    for size, start, magic, single, pair in (
        (348, 344, b"+1\0", nib.Nifti1Header, nib.nifti1.Nifti1PairHeader),
        (540, 4, b"+2\0", nib.Nifti2Header, nib.nifti2.Nifti2PairHeader),
    ):
        if size in _sizes(head) and len(head) >= size and head[start : start + 1] == b"n":
            ending = head[start + 1 : start + 4]
            if ending in (magic, magic.replace(b"+", b"i")):
                return single if ending == magic else pair
    return None


def describe_bytes(content: bytes | bytearray) -> str:
    """Describe bytes that are no NIfTI file.

    Example:
        >>> describe_bytes(b"<html>404"), describe_bytes(bytes(128) + b"DICM")
        ('text', 'DICOM')
    """
    for start, name in _KNOWN:
        if content.startswith(start):
            return name
    if content[128:132] == b"DICM":
        return "DICOM"
    try:
        content[:512].decode("utf-8")
    except UnicodeDecodeError:
        return "bytes of another kind"
    return "text" if b"\0" not in content[:512] else "bytes of another kind"


def place_image(image: Any, name: object) -> tuple[Grid, list[Finding]]:
    """Return where a nibabel image in memory lies, and the rules for scans that its header breaks.

    Raises:
        GeometryError: its affine cannot be used.
    """
    shape, fields, problems = tuple(map(int, image.shape[:3])), image.header, list[Finding]()
    affine = np.array(image.affine, dtype=np.float64)
    if isinstance(fields, nib.Nifti1Header):
        fixed = fields.copy()
        fixed.check_fix(logger=_SILENT)
        _grid(name, fields, fixed, (shape[0], shape[1], shape[2]), problems)
        affine[:3] *= _UNITS.get(int(fields["xyzt_units"]) & 7, ("", 1.0))[1]
    return Grid((shape[0], shape[1], shape[2]), affine), problems


def _grid(path: object, fields: Any, fixed: Any, shape: tuple[int, int, int], problems: list[Finding]) -> Grid:
    """Return where the voxels lie, and add the problems of the header's geometry.

    Args:
        path: the file.
        fields: the header as it stands.
        fixed: the same as nibabel corrects it.
        shape: of the volume.
        problems: gets the findings.
    """
    pixdim = np.asarray(fields["pixdim"][1:4], dtype=np.float64)
    shown = " x ".join(f"{step:.4g}" for step in pixdim)
    if not (np.isfinite(pixdim).all() and pixdim.all()):
        raise refusal(finding("pixdim-zero", path, f"a spacing of 0, or none at all: its pixdim is {shown}"))
    if pixdim.min() < 0:
        problems.append(finding("pixdim-negative", path, f"its pixdim is negative: {shown}"))
    unit, factor = _UNITS.get(int(fields["xyzt_units"]) & 7, (None, 1.0))
    if unit is None:
        message = f"its unit of length is unknown (xyzt_units {int(fields['xyzt_units'])}), and taken for mm"
        problems.append(finding("unit-unknown", path, message))
    elif unit:
        problems.append(finding("spacing-unit", path, f"its lengths are in {unit}, and converted to mm"))
    code, other_code = int(fields["sform_code"]), int(fields["qform_code"])
    if not (0 <= code <= 5 and 0 <= other_code <= 5):
        message = f"its sform_code is {code} and its qform_code {other_code}, and NIfTI has 0 to 5"
        raise refusal(finding("affine-impossible", path, message))
    if not code and not other_code:
        message = "neither sform nor qform is set, so that left and right are unknown"
        problems.append(finding("no-geometry", path, message))
        return _placed(path, shape, fixed.get_base_affine(), factor, "pixdim")
    if not code:
        return _placed(path, shape, _qform(fields, fixed), factor, "qform")
    grid = _placed(path, shape, fixed.get_sform(), factor, "sform")
    if other_code:
        problems += _compare_forms(path, grid, _qform(fields, fixed), factor)
    spacing = np.abs(pixdim) * factor
    if np.abs(spacing - grid.spacing).max() > 1e-3 * max(grid.spacing):
        voxel = " x ".join(f"{step:.4g}" for step in grid.spacing)
        message = f"its affine gives voxels of {voxel} mm, its pixdim {shown}; it is read by its affine"
        problems.append(finding("spacing-contradicts", path, message))
    return grid


def _qform(fields: Any, fixed: Any) -> npt.NDArray[np.float64]:
    """Return the affine of the qform; NaN where it is no rotation, or pixdim[0] says neither left- nor right-handed."""
    try:
        if float(fields["pixdim"][0]) not in (-1.0, 0.0, 1.0):  # nibabel takes any other for 1, ITK goes by its sign
            raise ValueError
        return np.asarray(fixed.get_qform(), dtype=np.float64)
    except Exception:  # nibabel: quaternion too long, a spacing below zero
        return np.full((4, 4), np.nan)


def _placed(path: object, shape: tuple[int, int, int], affine: npt.NDArray[Any], factor: float, form: str) -> Grid:
    affine = np.array(affine, dtype=np.float64)
    affine[:3] *= factor
    try:
        return Grid(shape, affine)
    except GeometryError as error:
        message = f"its {form} cannot be used: {error.problem} ({error.came})"
        raise refusal(finding("affine-impossible", path, message)) from error


def _compare_forms(path: object, grid: Grid, qform: npt.NDArray[np.float64], factor: float) -> Iterator[Finding]:
    try:
        distance = grid.distance(_placed(path, grid.shape, qform, factor, "qform"))
    except GeometryError:
        yield finding("sform-qform", path, "its qform is no rotation, unlike its sform")
        return
    if distance > _FORMS_MM:
        code = "sform-qform" if distance > min(grid.spacing) / 2 else "sform-qform-close"
        yield finding(code, path, f"sform and qform differ, corners lie up to {distance:.4g} mm apart")
