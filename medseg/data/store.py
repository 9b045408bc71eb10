"""Store a case as slices that are read one by one: int16 HU and labels, each slice compressed alone.

The cost of drawing a slice does not depend on the size of the volume or of the set, and only the slice is in
memory, not even an open file; recently read slices stay in the system's page cache, which all
processes share.

A file is a head (`_HEAD`), a JSON text, a table with a row for each slice (`_ROW`) and the slices as blosc2
chunks; reading a slice takes the head, its row and its chunk. Not blosc2's own frame: an open one keeps
0.4 MB, and opening it for each draw takes longer than the slice (docs/benchmarks/data.md).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import deflate
import numpy as np
import numpy.typing as npt

from medseg.atomic import atomic_path
from medseg.data.nifti_writer import label_dtype
from medseg.errors import DataError, LabelError
from medseg.grid import Grid, to_ras
from medseg.labels import LabelMap
from medseg.optional import require

IMAGE_SUFFIX, LABEL_SUFFIX = ".image.slices", ".label.slices"
FILL_HU = -1024  # air, beyond the image
_PREPARE_AGAIN = "Prepare the case again."
_MAGIC = b"medseg01"  # its last two characters are the version
_HEAD = struct.Struct("<8s3sII")  # magic, type of the voxels, bytes of the text, its checksum
_TYPES = (b"<i2", b"|u1", b"<u2")
_ROW = np.dtype([("start", "<u8"), ("size", "<u4"), ("crc", "<u4")])  # position of a chunk; checksum of head and chunk


@dataclass(frozen=True)
class StoredVolume:
    """Point to a volume in a store, `(1, I, J, K)`; the slices lie along its last axis. Pickles as a path.

    Args:
        path: its file.
        shape: channel and axes, in RAS; the axis of the slices comes last.
        lookup: for a label map, the class of each of its values.
    """

    path: Path
    shape: tuple[int, int, int, int]
    lookup: tuple[int, ...] | None = None

    def read_slice(self, k: int) -> npt.NDArray[Any]:
        """Return slice `k`, `(I, J)`: HU as int16, or classes.

        Raises:
            DataError: the slice does not exist, or its bytes are damaged.
        """
        if not 0 <= k < self.shape[3]:
            raise DataError(self.path, f"the slices are 0 to {self.shape[3] - 1}", f"got {k}")
        blosc2 = require("blosc2", extra="store")
        with _open(self.path) as file:
            dtype, length, _, seed = _head(self.path, file)
            (row,) = np.frombuffer(_read(self.path, file, _HEAD.size + length + k * _ROW.itemsize, _ROW.itemsize), _ROW)
            chunk = _read(self.path, file, int(row["start"]), int(row["size"]))
        if deflate.crc32(chunk, seed) != row["crc"]:
            raise _damaged(self.path, f"the checksum of slice {k} is wrong")
        stored = np.empty(self.shape[2:0:-1], dtype)
        try:
            blosc2.decompress2(chunk, dst=stored, nthreads=1)
        except (RuntimeError, ValueError) as error:
            raise _damaged(self.path, f"slice {k}: {error}") from error
        plane: npt.NDArray[Any] = stored.T
        return plane if self.lookup is None else np.asarray(self.lookup, dtype=plane.dtype)[plane]

    def read(self) -> npt.NDArray[Any]:
        """Return all slices, `(I, J, K)`."""
        return np.stack([self.read_slice(k) for k in range(self.shape[3])], axis=-1)


@dataclass(frozen=True)
class StoredCase:
    """Point to one case of a store.

    Args:
        image: HU.
        label: classes.
        index: which slices hold which structure, `(structures, K)`, without the background.
        grid: axes in RAS, the axis of the slices last.
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
    """Write one case: `<case>.image.slices` and `<case>.label.slices`, each complete or not at all.

    Args:
        folder: of the files.
        case: its id.
        hu: CT in HU, `(I, J, K)`; rounded to whole HU.
        label: class indices, `(I, J, K)`.
        grid: of both; they are reoriented to RAS.
        labels: what the classes mean.
        axis: the axis, in RAS, along which the slices lie: 2 for axial ones.

    Raises:
        DataError: HU that are not finite or do not fit int16.
        LabelError: an index that `labels` does not hold.
        MissingExtraError: blosc2 is not installed.
        OutputError: a file cannot be written.
    """
    (hu, label), turned = to_ras([hu, label], grid)
    if hu.dtype != np.int16:
        if hu.dtype.kind == "f" and not np.isfinite(hu).all():
            raise DataError(f"case {case}", "the image has NaN or infinite values")
        hu = np.rint(hu)
        if hu.min() < -32768 or hu.max() > 32767:
            problem = "HU must be between -32768 and 32767"
            raise DataError(f"case {case}", problem, f"got {hu.min():g} to {hu.max():g}")
        hu = hu.astype(np.int16)
    if label.size and int(label.max()) >= len(labels):
        raise LabelError(f"case {case}", f"labels must not exceed {len(labels) - 1}", f"got {int(label.max())}")
    others = [index for index in range(3) if index != axis]
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
        # Differences of neighbors, high and low bytes apart; labels are flat, both filters only cost them time.
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
    """Open one case of a store without reading a slice.

    Args:
        folder: of its files.
        case: its id.
        labels: the numbering to return; structures it does not hold become background.

    Raises:
        DataError: a file is missing or damaged.
    """
    image_path, label_path = Path(folder) / f"{case}{IMAGE_SUFFIX}", Path(folder) / f"{case}{LABEL_SUFFIX}"
    about, of_image = _about(label_path), _about(image_path)
    if about["shape"] != of_image["shape"] or about["affine"] != of_image["affine"]:
        raise DataError(label_path, f"its grid differs from that of {image_path.name}", "", _PREPARE_AGAIN)
    stored_labels = LabelMap.from_dict(about["labels"], source=label_path)
    i, j, k = about["shape"]
    shape = (1, int(i), int(j), int(k))
    count = len(stored_labels) - 1
    packed = np.frombuffer(bytes.fromhex(about["index"]), np.uint8)
    index = np.unpackbits(packed, count=count * shape[3]).reshape(count, shape[3]).astype(bool)
    grid = Grid(shape[1:], np.array(about["affine"]))
    if labels is None or labels == stored_labels:
        return StoredCase(StoredVolume(image_path, shape), StoredVolume(label_path, shape), index, grid)
    lookup = tuple(labels.index(name) if name in labels else 0 for name in stored_labels.names)
    rows = [stored_labels.index(name) - 1 if name in stored_labels else None for name in labels]
    renumbered = np.array([np.zeros(shape[3], dtype=bool) if row is None else index[row] for row in rows])
    return StoredCase(StoredVolume(image_path, shape), StoredVolume(label_path, shape, lookup), renumbered, grid)


def _about(path: Path) -> dict[str, Any]:
    """Return the description in a file."""
    with _open(path) as file:
        _, length, crc, _ = _head(path, file)
        text = _read(path, file, _HEAD.size, length)
    if deflate.crc32(text) != crc:
        raise _damaged(path, "the checksum of its description is wrong")
    return dict(json.loads(text))


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise DataError(path, "this file of the slice store is missing", "", "Prepare the set again.") from error
    except OSError as error:
        raise _damaged(path, str(error)) from error


def _head(path: Path, file: BinaryIO) -> tuple[np.dtype[Any], int, int, int]:
    """Return the type of the voxels, length and checksum of the text, and the checksum of the head."""
    head = _read(path, file, 0, _HEAD.size)
    magic, dtype, length, crc = _HEAD.unpack(head)
    if magic != _MAGIC:
        raise _damaged(path, f"it begins with {magic!r} instead of {_MAGIC!r}")
    if dtype not in _TYPES:
        raise _damaged(path, f"its voxels have the type {dtype!r}")
    return np.dtype(dtype.decode()), length, crc, deflate.crc32(head)


def _read(path: Path, file: BinaryIO, start: int, size: int) -> bytes:
    try:
        file.seek(start)
        content = file.read(size)
    except (OSError, OverflowError, MemoryError) as error:
        raise _damaged(path, f"{size} bytes at {start} cannot be read, {error}") from error
    if len(content) < size:
        raise _damaged(path, f"it ends after {len(content)} of {size} bytes at {start}")
    return content


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(path, f"the file of the slice store is damaged: {reason}", "", _PREPARE_AGAIN)
