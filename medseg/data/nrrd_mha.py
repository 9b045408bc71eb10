"""NRRD (.nrrd, .nhdr) and MetaImage (.mha, .mhd) volumes, read strictly.

Not ITK's readers: these take an NRRD whose space is not set for LPS, and pass a compressed MetaImage whose bytes are
damaged. Both formats are a text header and the voxels, raw or compressed, in the same file or beside it.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medseg.data.gzip_io import cut_short, damaged, inflate
from medseg.data.scan_rules import finding, refusal
from medseg.errors import DataError, GeometryError
from medseg.findings import Finding
from medseg.grid import Grid

NRRD_SUFFIXES = (".nrrd", ".nhdr")
META_SUFFIXES = (".mha", ".mhd")
_HEADER_BYTES = 1 << 16
# To RAS, as the grid has it, from the frame that the file names; other NRRD spaces do not say which side is left.
_LPS, _LAS, _RAS = np.diag([-1.0, -1.0, 1.0]), np.diag([-1.0, 1.0, 1.0]), np.eye(3)
_SPACES = {
    **{"left-posterior-superior": _LPS, "lps": _LPS, "left-anterior-superior": _LAS, "las": _LAS},
    **{"right-anterior-superior": _RAS, "ras": _RAS},
}
_UNITS = {"mm": 1.0, "m": 1000.0, "cm": 10.0, "um": 0.001, "\u00b5m": 0.001}  # in mm
_NRRD_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **{"float": "f4", "double": "f8"},
}
_META_TYPES = {
    **{"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4"},
    **{"MET_FLOAT": "f4", "MET_DOUBLE": "f8"},
}


@dataclass(frozen=True)
class RawVolume:
    """The header of a file: where its voxels are, and what they are.

    Args:
        path: the file with the header.
        grid: where the voxels lie; RAS, mm.
        dtype: of the stored voxels, with their byte order.
        data_path: the file with the voxels.
        offset: bytes before them; -1 where they are the last bytes of the file.
        decompress: makes stored bytes from compressed ones; None where they are raw.
        problems: the rules for scans that the header breaks.
    """

    path: Path
    grid: Grid
    dtype: np.dtype[np.generic]
    data_path: Path
    offset: int
    decompress: Callable[[bytes], bytes | bytearray] | None
    problems: tuple[Finding, ...] = ()

    def voxels(self) -> npt.NDArray[np.generic]:
        """Return the voxels, `(I, J, K)`.

        Raises:
            DataError: they are cut short or damaged.
        """
        expected = int(np.prod(self.grid.shape, dtype=np.int64)) * self.dtype.itemsize
        try:
            content: bytes | bytearray = self.data_path.read_bytes()
            content = content[len(content) - expected if self.offset < 0 else self.offset :]
            if self.decompress is not None:
                content = self.decompress(bytes(content))
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise damaged(self.data_path, error) from error
        if len(content) < expected:
            raise cut_short(self.data_path, len(content), expected)
        if len(content) > expected:
            problem = f"there are {len(content):,} bytes of voxels, and the header says {expected:,}"
            raise DataError(self.data_path, problem, fix="Copy it again; its header or its voxels are damaged.")
        stored = np.ndarray(self.grid.shape, self.dtype, buffer=content, order="F")
        return np.array(stored, dtype=self.dtype.newbyteorder("="), order="F")


def open_raw(path: str | Path) -> RawVolume:
    """Read the header of an NRRD or MetaImage file.

    Raises:
        DataError: it is missing, damaged, or of a kind that is not read (colors, several volumes, text).
        GeometryError: it does not say where its voxels lie in the patient, or is not a 3D volume.
    """
    path = Path(path)
    if not path.exists():
        raise _refused("file-missing", path, "no such file")
    try:
        with path.open("rb") as file:
            content = file.read(_HEADER_BYTES)
    except OSError as error:
        raise _refused("file-unreadable", path, f"the file cannot be opened: {error.strerror or error}") from error
    if not content:
        raise _refused("file-empty", path, "the file is empty")
    return _open_nrrd(path, content) if path.suffix.lower() in NRRD_SUFFIXES else _open_meta(path, content)


def _open_nrrd(path: Path, content: bytes) -> RawVolume:
    if not content.startswith(b"NRRD"):
        raise _refused("file-not-image", path, "the file is not in NRRD format")
    text, ending = _split_header(content, rb"\r?\n\r?\n")
    fields: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        key, separator, value = line.partition(":")
        if separator and not line.startswith("#"):
            fields[key.strip().lower()] = value.removeprefix("=").strip()
    shape = _sizes(path, fields.get("dimension", ""), fields.get("sizes", ""))
    frame = _SPACES.get(fields.get("space", "").lower())
    if frame is None:
        message = f"the header does not say which side is left ({fields.get('space') or 'no space'})"
        raise _refused("affine-impossible", path, message, "Save it with a space, as 3D Slicer does.")
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", ""))) - {""} or {"mm"}
    shown = ", ".join(sorted(units))
    if len(units) > 1 or shown not in _UNITS:
        raise _refused("affine-impossible", path, f"its unit of length must be mm ({shown})")
    problems = () if shown == "mm" else (finding("spacing-unit", path, f"its lengths are in {shown}, converted to mm"),)
    frame = frame * _UNITS[shown]
    directions = np.array([_numbers(path, part, 3) for part in _vectors(path, fields, "space directions", 3)])
    (origin,) = (_numbers(path, part, 3) for part in _vectors(path, fields, "space origin", 1))
    dtype = _NRRD_TYPES.get(fields.get("type", "").lower())
    encoding = fields.get("encoding", "").lower()
    if dtype is None or encoding not in ("raw", "gzip", "gz") or fields.get("line skip", "0") != "0":
        shown = f"type {fields.get('type')}, encoding {encoding}, line skip {fields.get('line skip', 0)}"
        fix = "Save it with numbers, encoding raw or gzip."
        raise _refused("file-header", path, f"this kind of NRRD is not read ({shown})", fix)
    data_path = _data_file(path, fields.get("data file", fields.get("datafile")))
    skip = int(_numbers(path, fields.get("byte skip", "0"), 1)[0])
    return RawVolume(
        path,
        _grid(path, shape, frame @ directions.T, frame @ origin),
        _dtype(dtype, fields.get("endian", "little").lower() == "big"),
        data_path,
        skip if skip < 0 or data_path != path else ending + skip,
        _inflate_gzip if encoding != "raw" else None,
        problems,
    )


def _open_meta(path: Path, content: bytes) -> RawVolume:
    text, ending = _split_header(content, rb"ElementDataFile *= *[^\r\n]*\r?\n?")
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        fields[key.strip()] = value.strip()
    if "ElementDataFile" not in fields:
        raise _refused("file-not-image", path, "the file is not in MetaImage format")
    shape = _sizes(path, fields.get("NDims", ""), fields.get("DimSize", ""))
    keys = ("TransformMatrix", "Rotation", "Orientation"), ("Offset", "Position", "Origin"), ("ElementSpacing",)
    numbers = []
    for names, count in zip(keys, (9, 3, 3), strict=True):
        values = [fields[name] for name in names if name in fields]
        if not values:
            message = f"the header does not say where the voxels lie: {names[0]} is missing"
            raise _refused("affine-impossible", path, message)
        numbers.append(_numbers(path, values[0], count))
    matrix, offset, spacing = numbers
    if spacing.min() < 0:
        raise _refused("affine-impossible", path, f"its ElementSpacing is negative ({fields['ElementSpacing']})")
    dtype = _META_TYPES.get(fields.get("ElementType", ""))
    channels, binary = fields.get("ElementNumberOfChannels", "1"), fields.get("BinaryData", "True")
    if dtype is None or channels != "1" or binary.lower() != "true":
        shown = f"{fields.get('ElementType')}, channels {channels}, BinaryData {binary}"
        fix = "Save it as binary numbers, one a voxel."
        raise _refused("file-header", path, f"this kind of MetaImage is not read ({shown})", fix)
    local = fields["ElementDataFile"].upper() == "LOCAL"
    big = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")).lower() == "true"
    header_size = int(_numbers(path, fields.get("HeaderSize", "0"), 1)[0])
    return RawVolume(
        path,
        # Each three numbers of the matrix are the direction of one voxel axis in LPS.
        _grid(path, shape, _LPS @ (matrix.reshape(3, 3).T * spacing), _LPS @ offset),
        _dtype(dtype, big),
        path if local else _data_file(path, fields["ElementDataFile"]),
        ending if local else header_size,
        _inflate_zlib if fields.get("CompressedData", "False").lower() == "true" else None,
    )


def _split_header(content: bytes, end: bytes) -> tuple[str, int]:
    """Return the text of a header to the end of the first match, and how many bytes that is."""
    match = re.search(end, content)
    ending = match.end() if match else len(content)
    return content[:ending].decode("latin-1"), ending


def _sizes(path: Path, dimension: str, sizes: str) -> tuple[int, int, int]:
    count = int(dimension) if dimension.isdecimal() else 0
    if count < 3 or set(sizes.split()[3:]) - {"1"}:
        raise _refused("not-3d", path, f"a scan must be a 3D volume ({dimension or 'no'} dimensions)")
    i, j, k = (int(size) for size in _numbers(path, sizes, count)[:3])
    return i, j, k


def _vectors(path: Path, fields: Mapping[str, str], key: str, count: int) -> list[str]:
    vectors = re.findall(r"\(([^)]*)\)", fields.get(key, ""))
    if len(vectors) != count:
        message = f"the header does not say where the voxels lie: {key} ({fields.get(key, 'missing')})"
        raise _refused("affine-impossible", path, message)
    return vectors


def _numbers(path: Path, text: str, count: int) -> npt.NDArray[np.float64]:
    try:
        numbers = np.array([float(part) for part in text.replace(",", " ").split()])
    except ValueError:
        numbers = np.empty(0)
    if numbers.shape != (count,):
        raise _refused("file-header", path, f"the header must give {count} numbers ({text})")
    return numbers


def _grid(
    path: Path, shape: tuple[int, int, int], axes: npt.NDArray[np.float64], origin: npt.NDArray[np.float64]
) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = origin
    try:
        return Grid(shape, affine)
    except GeometryError as error:
        message = f"{error.thing}: {error.problem} ({error.came})"
        raise _refused("affine-impossible", path, message) from error


def _dtype(code: str, big: bool) -> np.dtype[np.generic]:
    return np.dtype(code).newbyteorder(">" if big else "<")


def _data_file(path: Path, name: str | None) -> Path:
    """Return the file with the voxels, which must lie beside its header."""
    if name is None:
        return path
    if name.split()[0].upper() == "LIST" or "%" in name or Path(name).name != name:
        message = f"the voxels must be in one file beside the header ({name})"
        raise _refused("file-header", path, message, "Save it as a single file.")
    if not path.with_name(name).is_file():
        raise _refused("file-missing", path, f"its voxels are in {name}, which is missing", "Copy both files.")
    return path.with_name(name)


def _inflate_gzip(content: bytes) -> bytes | bytearray:
    """Decompress gzip, as the header says; anything else is damaged, and must not be taken for voxels.

    Raises:
        gzip.BadGzipFile, zlib.error: the bytes are damaged; EOFError: they end too early.
    """
    return inflate(content) if content.startswith(b"\x1f\x8b") else gzip.decompress(content or b"\0")


def _refused(code: str, path: Path, message: str, fix: str = "") -> DataError:
    return refusal(finding(code, path, message, fix))


def _inflate_zlib(content: bytes) -> bytes:
    """Decompress a zlib or gzip stream; its checksum must agree.

    Raises:
        zlib.error: the bytes are damaged; EOFError: they end too early.
    """
    stream = zlib.decompressobj(32 + zlib.MAX_WBITS)  # detects which of the two it is
    text = stream.decompress(content)
    if not stream.eof:
        raise EOFError("the compressed bytes end too early")
    return text
