"""Compare the values of a scan with those that a network was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.data.checks.intensities import PERCENTILES, SAMPLE, Histogram, check_intensities, histogram, is_hu
from medseg.data.phantom import is_phantom
from medseg.data.scan_rules import finding
from medseg.data.volumes import is_volume_file, read_scan
from medseg.errors import MedsegError
from medseg.findings import Finding

KEY = "training_images"  # in metadata.json
_CASES = 4  # are enough for the range of a set, and read in seconds
_LEVELS = ("p0_5", "p50", "p99_5")
_FACTOR = 4.0  # how much narrower or wider than in training the range of values may be


def describe_training(images: Sequence[Path]) -> dict[str, Any]:
    """Return what is to be known of the images that a network is trained on, from a few of them.

    Returns:
        `phantoms`: whether they are synthetic. Of volumes also `cases` (how many were read), `hu` (whether all can be
        HU), and the lowest and highest `p0_5`, `p50` and `p99_5`.
    """
    chosen = [images[k] for k in sorted({round(k) for k in np.linspace(0, len(images) - 1, _CASES)})] if images else []
    description: dict[str, Any] = {"phantoms": bool(chosen) and all(map(is_phantom, chosen))}
    with ThreadPoolExecutor(_CASES) as pool:
        read = pool.map(_histogram_of, [path for path in chosen if is_volume_file(path) or path.is_dir()])
        histograms = [values for values in read if values is not None and len(values.values)]
    if histograms:
        rows = [{level: values.percentile(PERCENTILES[level]) for level in _LEVELS} for values in histograms]
        description |= {"cases": len(rows), "hu": all(is_hu(check_intensities(values, "")) for values in histograms)}
        description |= {level: [min(row[level] for row in rows), max(row[level] for row in rows)] for level in _LEVELS}
    return description


def _histogram_of(path: Path) -> Histogram | None:
    try:
        return _sampled(read_scan(path).voxels)
    except MedsegError:
        return None  # training will say so


def _sampled(voxels: npt.NDArray[Any]) -> Histogram:
    flat = voxels.ravel(order="K")
    return histogram(flat[:: max(1, flat.size // SAMPLE)])


def compare_intensities(
    voxels: npt.NDArray[Any], location: object, hounsfield: bool, reference: object = None
) -> list[Finding]:
    """Return what makes it doubtful that a scan is of the kind that a network was trained on.

    Args:
        voxels: of the scan, `(I, J, K)`.
        location: the scan.
        hounsfield: whether the network takes HU, as far as its metadata say.
        reference: what `describe_training` returned; anything else if nothing is known.
    """
    values = _sampled(voxels)
    findings = check_phantoms(location, reference)
    reference = reference if isinstance(reference, Mapping) else {}
    if reference.get("hu", hounsfield) and hounsfield:
        return findings + [problem for problem in check_intensities(values, location) if problem.severity != "note"]
    if len(values.values) == 1:
        return [*findings, finding("constant", location, f"every voxel is {values.values[0]:g}")]
    bounds = _bounds(reference)
    if bounds is not None:
        low, high = bounds
        row = {level: values.percentile(PERCENTILES[level]) for level in _LEVELS}
        width, usual = row["p99_5"] - row["p0_5"], max(high - low, 1e-6)
        apart = row["p0_5"] > high or row["p99_5"] < low
        if apart or not usual / _FACTOR <= width <= usual * _FACTOR:
            message = (
                f"its values (0.5 to 99.5 %) run from {row['p0_5']:.4g} to {row['p99_5']:.4g}, those of the images "
                f"that the network was trained on from {low:.4g} to {high:.4g}"
            )
            findings.append(finding("unlike-training", location, message))
    return findings


def check_phantoms(location: object, reference: object = None) -> list[Finding]:
    """Return a warning if a network was trained on phantoms, and an image is none; see `compare_intensities`."""
    if not isinstance(reference, Mapping) or reference.get("phantoms") is not True:
        return []
    if isinstance(location, Path) and is_phantom(location):
        return []
    return [finding("trained-on-phantoms", location, "the network was trained on phantoms, not on patients")]


def _bounds(reference: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the lowest and highest value of a reference; None where it has none, or was written by hand."""
    try:
        return float(reference["p0_5"][0]), float(reference["p99_5"][1])
    except (KeyError, IndexError, TypeError, ValueError):
        return None
