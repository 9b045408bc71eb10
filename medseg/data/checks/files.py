"""Read a NIfTI file in one pass: decompress it, verify its checksum, parse its header; or report what is wrong."""

from __future__ import annotations

import io
import logging
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from medseg.data.gzip_io import inflate
from medseg.findings import Finding, error

_SILENT = logging.getLogger(f"{__name__}.silent")  # nibabel logs every detail that it corrects
_SILENT.disabled = True
COPY_AGAIN = "Download or copy it again."
_GZIP, _LFS = b"\x1f\x8b", b"version https://git-lfs"
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
class Volume:
    """Hold a NIfTI file in memory.

    Args:
        path: the file.
        header: nibabel's header.
        raw: voxels as stored, `(I, J, K)` or any other shape, in the file's own (Fortran) order.
        slope: what stored values are multiplied by.
        intercept: what is then added.
    """

    path: Path
    header: Any
    raw: npt.NDArray[Any]
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the voxels along each array axis."""
        return self.raw.shape

    def scaled(self, part: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Convert stored values to HU, or labels."""
        if (self.slope, self.intercept) == (1.0, 0.0):
            return part
        return np.asarray(part * self.slope + self.intercept)


def read(path: Path) -> Volume | Finding:
    """Read a NIfTI file completely; if that fails, return the finding that says why."""
    try:
        content: bytes | bytearray = path.read_bytes()
    except FileNotFoundError:
        return error("file-missing", path, "the file does not exist", "Fetch it, or remove what names it.")
    except OSError as fault:
        message = f"the file cannot be opened: {fault.strerror or fault}"
        return error("file-unreadable", path, message, "Correct its permissions.")
    if not content:
        return error("file-empty", path, "the file is empty", COPY_AGAIN)
    if content.startswith(_LFS):
        message = "this is a Git LFS pointer, not the file itself"
        return error("file-pointer", path, message, "Fetch the file: git lfs pull")
    if content.startswith(_GZIP):
        unpacked = unpack(path, bytes(content))
        if isinstance(unpacked, Finding):
            return unpacked
        content = unpacked
        if not path.name.lower().endswith(".gz"):
            message = "the file is compressed, but its name does not end in .gz"
            return error("file-name", path, message, "Rename it to .nii.gz.")
    elif path.name.lower().endswith(".gz") and _header_class(content) is not None:
        return error("file-name", path, "its name ends in .gz, but the file is not compressed", "Rename it to .nii.")
    return parse(path, content)


def unpack(path: Path, content: bytes) -> bytes | bytearray | Finding:
    """Return the content of a gzip file with a valid checksum; or the finding that it is truncated or damaged."""
    try:
        return inflate(content)
    except EOFError:
        return error("file-truncated", path, "the file ends within its compressed content", COPY_AGAIN)
    except (OSError, zlib.error) as fault:
        reason = _first_line(fault)
        if "CRC" in reason or "length" in reason:
            return error("file-crc", path, f"its content does not match its checksum ({reason})", COPY_AGAIN)
        return error("file-damaged", path, f"its compressed bytes are damaged ({reason})", COPY_AGAIN)


def parse(path: Path, content: bytes | bytearray) -> Volume | Finding:
    """Parse a NIfTI file from its uncompressed bytes; the voxels are a view of `content`.

    A header of two files (`.hdr`) is read together with its `.img`.
    """
    kind = _header_class(content)
    if kind is None:
        if len(content) >= 348 and 348 in (_int(content, "little"), _int(content, "big")):
            message = "this is an Analyze file, which does not tell left from right"
            return error("file-not-image", path, message, "Convert it to NIfTI from its source.")
        return error(
            "file-not-image", path, f"this is no NIfTI file but {describe_bytes(content)}", "Remove or replace it."
        )
    try:
        header = _header(kind, content)
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
        slope, intercept = header.get_slope_inter()
        offset = int(header["vox_offset"])
    except Exception as fault:  # nibabel raises many types for one thing: an invalid header
        return error("file-header", path, f"its header cannot be read: {_first_line(fault)}", COPY_AGAIN)
    if not shape or min(shape) < 1:
        return error("file-header", path, f"its header gives the shape {tuple(shape)}", COPY_AGAIN)
    if header.is_single and offset < header.sizeof_hdr:
        message = f"its voxels would begin inside the header (vox_offset {offset})"
        return error("file-header", path, message, "Convert it again from its source.")
    if path.suffix.lower() == ".hdr":
        try:
            content = path.with_suffix(".img").read_bytes()
        except OSError:
            message = f"{path.name} is a header without voxels"
            return error("file-missing", path.with_suffix(".img"), message, "Fetch the voxels.")
    count = math.prod(shape)
    needed = count * dtype.itemsize + offset
    if len(content) < needed:
        message = f"the file ends after {len(content):,} of {needed:,} bytes"
        return error("file-truncated", path, message, COPY_AGAIN)
    raw = np.frombuffer(content, dtype, count, offset).reshape(shape, order="F")
    return Volume(path, header, raw, 1.0 if slope is None else slope, 0.0 if intercept is None else intercept)


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
        return f"{len(content)} bytes of another kind"
    return "text" if b"\0" not in content[:512] else f"{len(content)} bytes of another kind"


def _header_class(content: bytes | bytearray) -> Any:
    """Return the nibabel class of the header that `content` begins with; None if it is no NIfTI."""
    sizes = (_int(content, "little"), _int(content, "big"))
    if 348 in sizes and content[344:348] in (b"n+1\0", b"ni1\0"):
        return nib.Nifti1Header if content[344:348] == b"n+1\0" else nib.nifti1.Nifti1PairHeader
    if 540 in sizes and content[4:8] in (b"n+2\0", b"ni2\0"):
        return nib.Nifti2Header if content[4:8] == b"n+2\0" else nib.nifti2.Nifti2PairHeader
    return None


def _header(kind: Any, content: bytes | bytearray) -> Any:
    """Return the header, checked, with its extensions if there are any."""
    size = kind.sizeof_hdr
    header = kind(bytes(content[:size]), check=False)
    header.check_fix(logger=_SILENT)
    if content[size : size + 1].strip(b"\0") and header.is_single:
        start = bytes(content[: int(header["vox_offset"])])
        header = kind.from_fileobj(io.BytesIO(start), check=False)
        header.check_fix(logger=_SILENT)
    return header


def _int(content: bytes | bytearray, order: Any) -> int:
    return int.from_bytes(content[:4], order)


def _first_line(fault: Exception) -> str:
    return str(fault).splitlines()[0] if str(fault) else type(fault).__name__
