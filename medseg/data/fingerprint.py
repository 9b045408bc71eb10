"""Compute statistics of a data set: spacing, size, HU within structures, volume of each structure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.grid import Grid
from medseg.labels import LabelMap

PERCENTILES = (0.5, 5.0, 50.0, 95.0, 99.5)
_LOWEST, _BINS = -1024, 4096  # distinct HU; values beyond are clipped


def case_statistics(hu: npt.NDArray[Any], label: npt.NDArray[Any], grid: Grid, labels: LabelMap) -> dict[str, Any]:
    """Return the statistics of one case, in one pass over its labeled voxels.

    Args:
        hu: CT in HU, `(I, J, K)`.
        label: class indices, `(I, J, K)`.
        grid: of both.
        labels: what the classes mean.
    """
    labeled = label > 0
    classes = label[labeled].astype(np.int64)
    binned = np.clip(np.rint(hu[labeled]), _LOWEST, _LOWEST + _BINS - 1).astype(np.int64) - _LOWEST
    table = np.bincount(classes * _BINS + binned, minlength=len(labels) * _BINS).reshape(len(labels), _BINS)
    total = table.sum(axis=0)
    bins = np.flatnonzero(total)
    return {
        "shape": list(grid.shape),
        "spacing": [round(length, 6) for length in grid.spacing],
        "axes": grid.axes,
        "voxel_ml": grid.voxel_ml,
        "voxels": {name: int(table[labels.index(name)].sum()) for name in labels},
        "hu_by_structure": {
            name: percentiles(table[labels.index(name)]) for name in labels if table[labels.index(name)].any()
        },
        "hu_counts": [[int(bin) + _LOWEST for bin in bins], [int(total[bin]) for bin in bins]],
    }


def percentiles(counts: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return percentiles and mean of counted HU: the lowest HU that at least that share does not exceed.

    Example:
        >>> counts = np.zeros(4096, np.int64)
        >>> counts[1024 + 10], counts[1024 + 50] = 3, 1
        >>> percentiles(counts)["p50"], percentiles(counts)["p99.5"], percentiles(counts)["mean"]
        (10.0, 50.0, 20.0)
    """
    total = int(counts.sum())
    running = np.cumsum(counts)
    shares = {f"p{share:g}": float(np.searchsorted(running, share / 100 * total) + _LOWEST) for share in PERCENTILES}
    return {**shares, "mean": round(float(counts @ (np.arange(len(counts)) + _LOWEST)) / total, 3)}


def fingerprint(cases: Sequence[Mapping[str, Any]], labels: LabelMap) -> dict[str, Any]:
    """Return the statistics of a data set from those of its cases.

    `frequency` is the share of cases in which a structure occurs, `voxels` its voxels over all cases; a
    structure that occurs nowhere has no HU.
    """
    total = np.zeros(_BINS, dtype=np.int64)
    for case in cases:
        values, counts = case["hu_counts"]
        np.add.at(total, np.array(values, dtype=np.int64) - _LOWEST, np.array(counts, dtype=np.int64))
    return {
        "cases": len(cases),
        "spacing_mm": _spread([case["spacing"] for case in cases]),
        "size_voxels": _spread([case["shape"] for case in cases]),
        "size_mm": _spread([np.multiply(case["shape"], case["spacing"]) for case in cases]),
        "axes": {axes: sum(case["axes"] == axes for case in cases) for axes in sorted({c["axes"] for c in cases})},
        "hu_within_structures": percentiles(total) if total.any() else None,
        "structures": {name: _structure(name, cases) for name in labels},
    }


def _structure(name: str, cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    present = [case for case in cases if case["voxels"].get(name)]
    hu = [case["hu_by_structure"][name] for case in present]
    return {
        "frequency": round(len(present) / len(cases), 4) if cases else 0.0,
        "voxels": sum(case["voxels"][name] for case in present),
        "median_ml": _median(case["voxels"][name] * case["voxel_ml"] for case in present),
        "median_hu": _median(row["p50"] for row in hu),
    }


def _median(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return round(float(np.median(numbers)), 3) if numbers else None


def _spread(rows: Sequence[Any]) -> dict[str, list[float]]:
    """Return minimum, median and maximum along each axis."""
    table = np.asarray(rows, dtype=np.float64)
    rows_of = {"min": table.min(axis=0), "median": np.median(table, axis=0), "max": table.max(axis=0)}
    return {name: [round(float(value), 4) for value in values] for name, values in rows_of.items()}
