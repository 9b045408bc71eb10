"""A case as slices that are read one by one: int16 HU and labels, each slice a chunk that is compressed alone.

What it costs to draw a slice does not depend on the size of the volume or of the set, and nothing is kept in
memory but the slice; what was read lately stays in the system's page cache, which all processes share.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deflate
import numpy as np
import numpy.typing as npt

from medseg.atomic import atomic_path
from medseg.errors import DataError, LabelError
from medseg.grid import Grid, to_ras
from medseg.labels import LabelMap
from medseg.optional import require

IMAGE_SUFFIX, LABEL_SUFFIX = ".image.b2frame", ".label.b2frame"
FILL_HU = -1024  # air: what stands beyond the image
_VERSION = 1
_OPEN_FILES = 64  # of which the headers are kept, in each thread
_recent = threading.local()


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
        frame, about = _open(self.path)
        if not 0 <= k < self.shape[3]:
            raise DataError(self.path, f"has slices from 0 to {self.shape[3] - 1}", str(k))
        plane = np.empty(self.shape[1:3], about["dtype"])
        try:
            frame.decompress_chunk(k, plane)
        except RuntimeError as error:
            raise _damaged(self.path, f"slice {k}: {error}") from error
        if deflate.crc32(plane) != about["crc"][k]:
            raise _damaged(self.path, f"slice {k} with another checksum")
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
    """Write one case: `<case>.image.b2frame` and `<case>.label.b2frame`, each whole or not at all.

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
    about: dict[str, Any] = {"version": _VERSION, "case": case, "affine": affine.tolist(), "labels": labels.to_dict()}
    paths = Path(folder) / f"{case}{IMAGE_SUFFIX}", Path(folder) / f"{case}{LABEL_SUFFIX}"
    planes, classes = np.moveaxis(hu, axis, 0), np.moveaxis(label, axis, 0)
    index = np.zeros((len(labels), len(classes)), dtype=bool)
    for k, plane in enumerate(classes):
        index[np.flatnonzero(np.bincount(plane.ravel(), minlength=len(labels))), k] = True
    _write(paths[0], planes, about)
    _write(paths[1], classes, {**about, "index": np.packbits(index[1:]).tobytes().hex()})
    return paths


def _write(path: Path, planes: npt.NDArray[Any], about: dict[str, Any]) -> None:
    blosc2 = require("blosc2", extra="store")
    size = planes[0].nbytes
    settings = {
        "codec": blosc2.Codec.LZ4HC,
        "clevel": 5,
        "typesize": planes.dtype.itemsize,
        "blocksize": size,
        "nthreads": 1,
        "filters": [blosc2.Filter.SHUFFLE],
        "filters_meta": [0],
    }
    with atomic_path(path) as partial:
        frame = blosc2.SChunk(chunksize=size, contiguous=True, urlpath=str(partial), mode="w", cparams=settings)
        crc = []
        for plane in map(np.ascontiguousarray, planes):
            frame.append_data(plane)
            crc.append(deflate.crc32(plane))
        shape = [*planes.shape[1:], len(planes)]
        frame.vlmeta["medseg"] = json.dumps({**about, "dtype": planes.dtype.str, "shape": shape, "crc": crc})
        del frame


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
    return _open(path)[1]


def _open(path: Path) -> tuple[Any, dict[str, Any]]:
    """The file and what it says of itself; those used lately are kept, for each thread its own."""
    files: OrderedDict[Path, tuple[Any, dict[str, Any]]] = _recent.__dict__.setdefault("files", OrderedDict())
    if path not in files:
        blosc2 = require("blosc2", extra="store")
        if not path.is_file():
            raise DataError(path, "must be a volume of a slice store", "no such file", "Prepare the set again.")
        try:
            frame = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
            about = json.loads(frame.vlmeta["medseg"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise _damaged(path, str(error)) from error
        if about["version"] != _VERSION:
            raise DataError(
                path, f"must be of version {_VERSION} of the store", str(about["version"]), "Prepare again."
            )
        files[path] = frame, about
        while len(files) > _OPEN_FILES:
            files.popitem(last=False)
    files.move_to_end(path)
    return files[path]


def _damaged(path: Path, why: str) -> DataError:
    return DataError(path, "must be a whole volume of a slice store", why, "Prepare the case again.")


def stored_cases(folder: str | Path, cases: Sequence[str]) -> bool:
    """Whether all these cases lie in a store."""
    return all(
        (Path(folder) / f"{case}{suffix}").is_file() for case in cases for suffix in (IMAGE_SUFFIX, LABEL_SUFFIX)
    )
