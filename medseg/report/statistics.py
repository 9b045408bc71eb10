"""Statistics of a label map: volume, mean HU, voxels, and whether a structure reaches the border."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.atomic import write_csv, write_json
from medseg.errors import GeometryError
from medseg.findings import Finding
from medseg.grid import Grid
from medseg.labels import LabelMap


@dataclass(frozen=True)
class StructureStatistics:
    """One structure in one scan.

    Args:
        structure: its name.
        index: in the label map.
        voxels: number of voxels with its label.
        volume_ml: their volume.
        mean_hu: the mean of the scan over them; None without any.
        touches_border: whether one of them lies in the outermost layer of the scan, so that the structure may
            continue outside.
        confidence: the mean probability of the structure over its voxels; None if it was not requested.
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
    """Return the statistics of every structure, in the order of the label map; absent ones have 0 voxels and no mean.

    Args:
        hu: the scan, `(I, J, K)`.
        label: class indices, `(I, J, K)`.
        grid: of both.
        labels: what the indices mean.
        only: the requested structures; all by default.
        confidence: mean probability, by structure.

    Raises:
        GeometryError: the shapes differ.

    >>> hu, label = np.array([[[10.0], [30.0], [50.0]]]), np.array([[[1], [1], [0]]])
    >>> (liver,) = structure_statistics(hu, label, Grid((1, 3, 1), np.diag([10.0, 10, 10, 1])), LabelMap(["liver"]))
    >>> liver.voxels, round(liver.volume_ml, 6), liver.mean_hu, liver.touches_border
    (2, 2.0, 20.0, True)
    """
    if not hu.shape == label.shape == grid.shape:
        problem = f"the scan has the shape {hu.shape}, the label map {label.shape}, their grid {grid.shape}"
        raise GeometryError("statistics", problem, fix="Give all three of one scan.")
    voxels = np.zeros(len(labels), np.int64)
    sums = np.zeros(len(labels))
    # By slices, because bincount makes an index and a weight of 8 bytes a voxel.
    for k in range(label.shape[2]):
        flat = label[:, :, k].ravel(order="F")
        voxels += np.bincount(flat, minlength=len(labels))
        sums += np.bincount(flat, weights=hu[:, :, k].ravel(order="F"), minlength=len(labels))
    faces = [np.take(label, end, axis=axis) for axis in range(3) for end in (0, -1)]
    at_border = {int(index) for face in faces for index in np.unique(face)}
    names = labels.structures if only is None else [name for name in labels if name in set(only)]
    rows = []
    for name in names:
        index = labels.index(name)
        count = int(voxels[index])
        mean = float(sums[index] / count) if count else None
        probability = (confidence or {}).get(name) if count else None
        volume = count * grid.voxel_ml
        rows.append(StructureStatistics(name, index, count, volume, mean, index in at_border, probability))
    return rows


def save_statistics(
    path: str | Path, rows: Sequence[StructureStatistics], grid: Grid, scan: object, warnings: Sequence[Finding] = ()
) -> Path:
    """Write statistics as JSON to `path`, and as CSV beside it under the same name; each whole or not at all.

    The last column of the CSV holds the codes of the warnings, so that rows of doubtful scans can be left out.

    Args:
        path: the JSON file; the table gets its name with `.csv`.
        rows: as `structure_statistics` gives them.
        grid: of the scan; its spacing is written, too.
        scan: the scan that was segmented, for the record.
        warnings: what makes the result doubtful.

    Raises:
        OutputError: the files cannot be written.
    """
    path = Path(path)
    columns = [field.name for field in fields(StructureStatistics)]
    codes = " ".join(problem.code for problem in warnings)
    write_csv(path.with_suffix(".csv"), [*columns, "warnings"], [(*astuple(row), codes) for row in rows])
    described = [{"code": problem.code, "message": problem.message, "fix": problem.fix} for problem in warnings]
    content = {"scan": str(scan), "spacing_mm": list(grid.spacing), "warnings": described}
    write_json(path, {**content, "structures": [asdict(row) for row in rows]})
    return path
