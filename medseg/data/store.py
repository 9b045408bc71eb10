"""A case as slices that are read one by one: int16 HU and labels, each slice a chunk that is compressed alone.

What it costs to draw a slice does not depend on the size of the volume or of the set, and nothing is kept in
memory but the slice, not even an open file; what was read lately stays in the system's page cache, which all
processes share.

A file is a head (`_HEAD`), a JSON text, a table with a row for each slice (`_ROW`) and the slices as blosc2
chunks; to read a slice takes the head, its row and its chunk. Not blosc2's own frame: while one is open it keeps
0.4 MB, and to open it anew for each draw takes longer than the slice (docs/benchmarks/data.md).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import deflate
import numpy as np
import numpy.typing as npt

from medseg.atomic import atomic_path
from medseg.data.nifti import label_dtype
from medseg.errors import DataError, LabelError
from medseg.grid import Grid, to_ras
from medseg.labels import LabelMap
from medseg.optional import require

IMAGE_SUFFIX, LABEL_SUFFIX = ".image.slices", ".label.slices"
FILL_HU = -1024  # air: what stands beyond the image
_MAGIC = b"medseg01"  # its last two characters are the version
_HEAD = struct.Struct("<8s3sII")  # magic, type of the voxels, bytes of the text, its checksum
_TYPES = (b"<i2", b"|u1", b"<u2")
_ROW = np.dtype([("start", "<u8"), ("size", "<u4"), ("crc", "<u4")])  # where a chunk lies; checksum of head and chunk


@dataclass(frozen=True)
class StoredVolume:
    """A volume in a store, `(1, I, J, K)`; the slices lie along its last axis. Pickles as a path.

    Args:
        path: its file.
        shape: channel and axes, in RAS; the axis of the slices comes last.
        lookup: for a label map, the class that each of its values becomes.
    """

    path: Path
    shape: tuple[int, int, int, int]
    lookup: tuple[int, ...] | None = None

    def read_slice(self, k: int) -> npt.NDArray[Any]:
        """Slice `k`, `(I, J)`: HU as int16, or classes.

        Raises:
            DataError: there is no such slice, or its bytes are damaged.
        """
        if not 0 <= k < self.shape[3]:
            raise DataError(self.path, f"has slices from 0 to {self.shape[3] - 1}", str(k))
        blosc2 = require("blosc2", extra="store")
        with _open(self.path) as file:
            dtype, length, _, seed = _head(self.path, file)
            (row,) = np.frombuffer(_read(self.path, file, _HEAD.size + length + k * _ROW.itemsize, _ROW.itemsize), _ROW)
            chunk = _read(self.path, file, int(row["start"]), int(row["size"]))
        if deflate.crc32(chunk, seed) != row["crc"]:
            raise _damaged(self.path, f"slice {k} with another checksum")
        stored = np.empty(self.shape[2:0:-1], dtype)
        try:
            blosc2.decompress2(chunk, dst=stored, nthreads=1)
        except (RuntimeError, ValueError) as error:
            raise _damaged(self.path, f"slice {k}: {error}") from error
        plane: npt.NDArray[Any] = stored.T
        return plane if self.lookup is None else np.asarray(self.lookup, dtype=plane.dtype)[plane]

    def read(self) -> npt.NDArray[Any]:
        """The whole volume, `(I, J, K)`."""
        return np.stack([self.read_slice(k) for k in range(self.shape[3])], axis=-1)


@dataclass(frozen=True)
class StoredCase:
    """One case of a store.

    Args:
        image: HU.
        label: classes.
        index: which slices hold which structure, `(structures, K)`, without the background.
        grid: where it lies: axes in RAS, the axis of the slices last.
    """

    image: StoredVolume
    label: StoredVolume
    index: npt.NDArray[np.bool_]
    grid: Grid


def write_store(
    folder: str | Path,
    case: str,
    hu: npt.NDArray[Any],
    label: npt.NDArray[Any],
    grid: Grid,
    labels: LabelMap,
    axis: int = 2,
) -> tuple[Path, Path]:
    """Write one case: `<case>.image.slices` and `<case>.label.slices`, each whole or not at all.

    Args:
        folder: where the files go.
        case: its id.
        hu: CT in HU, `(I, J, K)`; rounded to whole HU.
        label: class indices, `(I, J, K)`.
        grid: where both lie; they are turned to RAS.
        labels: what the classes mean.
        axis: the axis, in RAS, along which the slices lie: 2 for axial ones.

    Raises:
        DataError: HU that are not finite or do not fit int16.
        LabelError: an index that `labels` does not hold.
        MissingExtraError: blosc2 is not installed.
        OutputError: the place cannot be written.
    """
    (hu, label), turned = to_ras([hu, label], grid)
    if hu.dtype != np.int16:
        if hu.dtype.kind == "f" and not np.isfinite(hu).all():
            raise DataError(f"case {case}", "needs finite HU", "NaN or infinite values")
        hu = np.rint(hu)
        if hu.min() < -32768 or hu.max() > 32767:
            raise DataError(f"case {case}", "needs HU from -32768 to 32767", f"{hu.min():g} to {hu.max():g}")
        hu = hu.astype(np.int16)
    if label.size and int(label.max()) >= len(labels):
        raise LabelError(f"case {case}", f"must hold labels up to {len(labels) - 1}", f"label {int(label.max())}")
    others = [other for other in range(3) if other != axis]
    affine = turned.affine[:, [*others, axis, 3]]
    about: dict[str, Any] = {"case": case, "affine": affine.tolist(), "labels": labels.to_dict()}
    paths = Path(folder) / f"{case}{IMAGE_SUFFIX}", Path(folder) / f"{case}{LABEL_SUFFIX}"
    planes, classes = np.moveaxis(hu, axis, 0), np.moveaxis(label, axis, 0).astype(label_dtype(len(labels)), copy=False)
    index = np.zeros((len(labels), len(classes)), dtype=bool)
    for k, plane in enumerate(classes):
        index[np.flatnonzero(np.bincount(plane.ravel(), minlength=len(labels))), k] = True
    _write(paths[0], planes, about)
    _write(paths[1], classes, {**about, "index": np.packbits(index[1:]).tobytes().hex()})
    return paths


def _write(path: Path, planes: npt.NDArray[Any], about: dict[str, Any]) -> None:
    blosc2 = require("blosc2", extra="store")
    dtype, hu = planes.dtype.newbyteorder("<"), planes.dtype.kind == "i"
    settings = {
        "codec": blosc2.Codec.ZSTD,
        "clevel": 1 if hu else 5,
        "typesize": dtype.itemsize,
        "blocksize": planes[0].nbytes,
        "nthreads": 1,
        # Differences of neighbours, high and low bytes apart; labels are flat, both filters only cost them time.
        "filters": [blosc2.Filter.SHUFFLE, blosc2.Filter.BYTEDELTA] if hu else [blosc2.Filter.NOFILTER],
        "filters_meta": [0, dtype.itemsize] if hu else [0],
    }
    text = json.dumps({**about, "shape": [*planes.shape[1:], len(planes)]}).encode()
    head = _HEAD.pack(_MAGIC, dtype.str.encode(), len(text), deflate.crc32(text))
    table, seed = np.zeros(len(planes), _ROW), deflate.crc32(head)
    with atomic_path(path) as partial, partial.open("wb") as file:
        file.seek(_HEAD.size + len(text) + table.nbytes)
        for row, plane in zip(table, planes, strict=True):
            # The first axis runs fastest, as in NIfTI. In axial slices it is left to right, along which the
            # noise of a CT is most alike.
            chunk = blosc2.compress2(np.ascontiguousarray(plane.T, dtype), **settings)
            row["start"], row["size"], row["crc"] = file.tell(), len(chunk), deflate.crc32(chunk, seed)
            file.write(chunk)
        file.seek(0)
        file.write(head + text + table.tobytes())


def read_store(folder: str | Path, case: str, labels: LabelMap | None = None) -> StoredCase:
    """Open one case of a store; no slice is read yet.

    Args:
        folder: where its files lie.
        case: its id.
        labels: the numbering that is wanted; structures it does not hold become background.

    Raises:
        DataError: a file is missing or damaged.
    """
    image_path, label_path = Path(folder) / f"{case}{IMAGE_SUFFIX}", Path(folder) / f"{case}{LABEL_SUFFIX}"
    about, of_image = _about(label_path), _about(image_path)
    if about["shape"] != of_image["shape"] or about["affine"] != of_image["affine"]:
        raise DataError(label_path, f"must lie where {image_path.name} lies", "another grid", "Prepare the case again.")
    own = LabelMap.from_dict(about["labels"], source=label_path)
    i, j, k = about["shape"]
    shape = (1, int(i), int(j), int(k))
    packed = np.frombuffer(bytes.fromhex(about["index"]), np.uint8)
    index = np.unpackbits(packed, count=(len(own) - 1) * shape[3]).reshape(len(own) - 1, shape[3]).astype(bool)
    grid = Grid(shape[1:], np.array(about["affine"]))
    if labels is None or labels == own:
        return StoredCase(StoredVolume(image_path, shape), StoredVolume(label_path, shape), index, grid)
    lookup = tuple(labels.index(name) if name in labels else 0 for name in own.names)
    rows = [own.index(name) - 1 if name in own else None for name in labels]
    wanted = np.array([np.zeros(shape[3], dtype=bool) if row is None else index[row] for row in rows])
    return StoredCase(StoredVolume(image_path, shape), StoredVolume(label_path, shape, lookup), wanted, grid)


def _about(path: Path) -> dict[str, Any]:
    """What a file says of itself."""
    with _open(path) as file:
        _, length, crc, _ = _head(path, file)
        text = _read(path, file, _HEAD.size, length)
    if deflate.crc32(text) != crc:
        raise _damaged(path, "a description with another checksum")
    return dict(json.loads(text))


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise DataError(path, "must be a volume of a slice store", "no such file", "Prepare the set again.") from error
    except OSError as error:
        raise _damaged(path, str(error)) from error


def _head(path: Path, file: BinaryIO) -> tuple[np.dtype[Any], int, int, int]:
    """The type of the voxels, the length of the text, its checksum, and the head's own."""
    head = _read(path, file, 0, _HEAD.size)
    magic, dtype, length, crc = _HEAD.unpack(head)
    if magic != _MAGIC:
        raise _damaged(path, f"{magic!r} where {_MAGIC!r} should stand")
    if dtype not in _TYPES:
        raise _damaged(path, f"voxels of type {dtype!r}")
    return np.dtype(dtype.decode()), length, crc, deflate.crc32(head)


def _read(path: Path, file: BinaryIO, start: int, size: int) -> bytes:
    try:
        file.seek(start)
        content = file.read(size)
    except (OSError, OverflowError, MemoryError) as error:
        raise _damaged(path, f"{size} bytes at {start}: {error}") from error
    if len(content) < size:
        raise _damaged(path, f"{len(content)} bytes where {size} should be")
    return content


def _damaged(path: Path, why: str) -> DataError:
    return DataError(path, "must be a whole volume of a slice store", why, "Prepare the case again.")


def stored_cases(folder: str | Path, cases: Sequence[str]) -> bool:
    """Whether all these cases lie in a store."""
    return all(
        (Path(folder) / f"{case}{suffix}").is_file() for case in cases for suffix in (IMAGE_SUFFIX, LABEL_SUFFIX)
    )
