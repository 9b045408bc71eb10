"""What a label map says in numbers: volume, mean HU, voxels, and whether a structure reaches the border."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.atomic import write_json, write_text
from medseg.errors import GeometryError
from medseg.grid import Grid
from medseg.labels import LabelMap


@dataclass(frozen=True)
class StructureStatistics:
    """One structure in one scan.

    Args:
        structure: its name.
        index: in the label map.
        voxels: how many carry its label.
        volume_ml: their volume.
        mean_hu: the mean of the scan over them; None where there are none.
        touches_border: whether one of them lies in the outermost layer of the scan, so that the structure may
            go on outside.
        confidence: how sure the network was: the mean probability of the structure over the voxels that got it;
            None where nobody asked for it.
    """

    structure: str
    index: int
    voxels: int
    volume_ml: float
    mean_hu: float | None
    touches_border: bool
    confidence: float | None = None


def structure_statistics(
    hu: npt.NDArray[Any],
    label: npt.NDArray[Any],
    grid: Grid,
    labels: LabelMap,
    only: Sequence[str] | None = None,
    confidence: Mapping[str, float] | None = None,
) -> list[StructureStatistics]:
    """The statistics of every structure, in the order of the label map; absent ones have 0 voxels and no mean.

    Args:
        hu: the scan, `(I, J, K)`.
        label: class indices, `(I, J, K)`.
        grid: where both lie.
        labels: what the indices mean.
        only: the structures that are wanted; all by default.
        confidence: how sure the network was, by structure.

    Raises:
        GeometryError: the shapes differ.

    >>> hu, label = np.array([[[10.0], [30.0], [50.0]]]), np.array([[[1], [1], [0]]])
    >>> (liver,) = structure_statistics(hu, label, Grid((1, 3, 1), np.diag([10.0, 10, 10, 1])), LabelMap(["liver"]))
    >>> liver.voxels, round(liver.volume_ml, 6), liver.mean_hu, liver.touches_border
    (2, 2.0, 20.0, True)
    """
    if not hu.shape == label.shape == grid.shape:
        raise GeometryError(
            "statistics", "need a scan and a label map of one shape", f"{hu.shape} and {label.shape} on {grid.shape}"
        )
    voxels = np.zeros(len(labels), np.int64)
    sums = np.zeros(len(labels))
    for k in range(label.shape[2]):  # by slices, for bincount makes an index and a weight of 8 bytes a voxel
        flat = label[:, :, k].ravel(order="F")
        voxels += np.bincount(flat, minlength=len(labels))
        sums += np.bincount(flat, weights=hu[:, :, k].ravel(order="F"), minlength=len(labels))
    faces = [np.take(label, end, axis=axis) for axis in range(3) for end in (0, -1)]
    at_border = {int(index) for face in faces for index in np.unique(face)}
    wanted = labels.structures if only is None else [name for name in labels if name in set(only)]
    found = []
    for name in wanted:
        index = labels.index(name)
        count = int(voxels[index])
        mean = float(sums[index] / count) if count else None
        sure = (confidence or {}).get(name) if count else None
        found.append(StructureStatistics(name, index, count, count * grid.voxel_ml, mean, index in at_border, sure))
    return found


def save_statistics(path: str | Path, found: Sequence[StructureStatistics], grid: Grid, scan: object) -> Path:
    """Write statistics as JSON to `path`, and as CSV beside it under the same name; each whole or not at all.

    Args:
        path: the JSON file; the table gets its name with `.csv`.
        found: what `structure_statistics` gave.
        grid: where the scan lies; its spacing is written along.
        scan: what was segmented; written along.

    Raises:
        OutputError: the place cannot be written.
    """
    path = Path(path)
    rows = [asdict(one) for one in found]
    table = io.StringIO()
    writer = csv.DictWriter(table, [field.name for field in fields(StructureStatistics)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path.with_suffix(".csv"), table.getvalue())
    write_json(path, {"scan": str(scan), "spacing_mm": list(grid.spacing), "structures": rows})
    return path
