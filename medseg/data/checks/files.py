"""One NIfTI file read in one pass: inflated, its checksum held, its header parsed; or what is wrong with it."""

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

_SILENT = logging.getLogger(f"{__name__}.silent")  # nibabel tells of every small thing that it mends
_SILENT.disabled = True
AGAIN = "Download or copy it again."
_GZIP, _LFS = b"\x1f\x8b", b"version https://git-lfs"
_KNOWN = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"PK\x03\x04", "a zip archive"),
    (b"%PDF", "a PDF"),
    (b"NRRD", "an NRRD volume"),
    (b"\x89HDF", "an HDF5 file"),
    (b"ObjectType", "a MetaImage header"),
)


@dataclass(frozen=True, eq=False)
class Volume:
    """A NIfTI file in memory.

    Args:
        path: the file.
        header: nibabel's header.
        raw: voxels as they are stored, `(I, J, K)` or whatever shape it has, in the file's own (Fortran) order.
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
        """Voxels along each array axis."""
        return self.raw.shape

    def scaled(self, part: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Stored values as what they mean: HU, or labels."""
        if (self.slope, self.intercept) == (1.0, 0.0):
            return part
        return np.asarray(part * self.slope + self.intercept)


def read(path: Path) -> Volume | Finding:
    """Read a NIfTI file whole; a finding says why it could not be."""
    try:
        content: bytes | bytearray = path.read_bytes()
    except FileNotFoundError:
        return error("file-missing", path, "no such file", "Fetch it, or remove what names it.")
    except OSError as fault:
        return error(
            "file-unreadable", path, f"it cannot be opened: {fault.strerror or fault}", "Mend its permissions."
        )
    if not content:
        return error("file-empty", path, "it holds no byte", AGAIN)
    if content.startswith(_LFS):
        return error(
            "file-pointer", path, "it is a Git-LFS pointer, not the file itself", "Fetch the file: git lfs pull"
        )
    if content.startswith(_GZIP):
        unpacked = unpack(path, bytes(content))
        if isinstance(unpacked, Finding):
            return unpacked
        content = unpacked
        if not path.name.lower().endswith(".gz"):
            return error(
                "file-name", path, "it is compressed, but its name does not end in .gz", "Rename it to .nii.gz."
            )
    elif path.name.lower().endswith(".gz") and _header_class(content) is not None:
        return error("file-name", path, "its name ends in .gz, but it is not compressed", "Rename it to .nii.")
    return parse(path, content)


def unpack(path: Path, content: bytes) -> bytes | bytearray | Finding:
    """The content of a gzip file, its checksum held; or the finding that it is cut short or damaged."""
    try:
        return inflate(content)
    except EOFError:
        return error("file-truncated", path, "it ends in the middle of its compressed content", AGAIN)
    except (OSError, zlib.error) as fault:
        reason = _first_line(fault)
        if "CRC" in reason or "length" in reason:
            return error("file-crc", path, f"its content does not fit its checksum ({reason})", AGAIN)
        return error("file-damaged", path, f"its compressed bytes are damaged ({reason})", AGAIN)


def parse(path: Path, content: bytes | bytearray) -> Volume | Finding:
    """A NIfTI file from its uncompressed bytes; voxels stay where they are in `content`.

    A header of two files (`.hdr`) is read together with its `.img`.
    """
    kind = _header_class(content)
    if kind is None:
        if len(content) >= 348 and 348 in (_int(content, "little"), _int(content, "big")):
            return error(
                "file-not-image",
                path,
                "it is an Analyze file, which does not tell left from right",
                "Convert it to NIfTI from its source.",
            )
        return error("file-not-image", path, f"it is no NIfTI file but {what_is(content)}", "Remove or replace it.")
    try:
        header = _header(kind, content)
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
        slope, intercept = header.get_slope_inter()
        offset = int(header["vox_offset"])
    except Exception as fault:  # nibabel raises many kinds for one thing: a header that cannot be
        return error("file-header", path, f"its header cannot be read: {_first_line(fault)}", AGAIN)
    if not shape or min(shape) < 1:
        return error("file-header", path, f"its header gives the shape {tuple(shape)}", AGAIN)
    if path.suffix.lower() == ".hdr":
        try:
            content = path.with_suffix(".img").read_bytes()
        except OSError:
            return error(
                "file-missing", path.with_suffix(".img"), f"{path.name} is a header alone", "Fetch the voxels."
            )
    count = math.prod(shape)
    needed = count * dtype.itemsize + offset
    if len(content) < needed:
        return error(
            "file-truncated", path, f"it holds {len(content)} of the {needed} bytes that its header promises", AGAIN
        )
    raw = np.frombuffer(content, dtype, count, offset).reshape(shape, order="F")
    return Volume(path, header, raw, 1.0 if slope is None else slope, 0.0 if intercept is None else intercept)


def what_is(content: bytes | bytearray) -> str:
    """A few words for bytes that are no NIfTI file.

    >>> what_is(b"<html>404"), what_is(bytes(128) + b"DICM")
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
    """The nibabel class of the header that `content` begins with; None where it is no NIfTI."""
    sizes = (_int(content, "little"), _int(content, "big"))
    if 348 in sizes and content[344:348] in (b"n+1\0", b"ni1\0"):
        return nib.Nifti1Header if content[344:348] == b"n+1\0" else nib.nifti1.Nifti1PairHeader
    if 540 in sizes and content[4:8] in (b"n+2\0", b"ni2\0"):
        return nib.Nifti2Header if content[4:8] == b"n+2\0" else nib.nifti2.Nifti2PairHeader
    return None


def _header(kind: Any, content: bytes | bytearray) -> Any:
    """The header, checked; with its extensions where there are any."""
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
