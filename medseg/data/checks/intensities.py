"""Check whether the values of an image can be the HU of a CT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.data.scan_rules import finding
from medseg.findings import Finding, error, note, warning

AIR = -500.0  # HU; below it there is only air or lung
SCANNER_LIMIT = 3000.0  # HU; about where twelve bits end, at which scanners cut off metal
VOID = -1100.0  # HU; below it there is only padding
SAMPLE = 1 << 21  # voxels sampled if values cannot be counted one by one
_SLAB = 1 << 20
PERCENTILES = {"p0_5": 0.005, "p50": 0.5, "p99_5": 0.995}


@dataclass(frozen=True, eq=False)
class Histogram:
    """Count how often each value occurs.

    Args:
        values: the finite values that occur, ascending, HU if the image is a CT.
        counts: their counts; of a sample if the image holds more than integers.
        broken: voxels that are NaN or infinite.
    """

    values: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    broken: int = 0

    def percentile(self, fraction: float) -> float:
        """Return the value that this fraction of the voxels does not exceed."""
        below = np.cumsum(self.counts)
        return float(self.values[np.searchsorted(below, fraction * below[-1], side="left").clip(0, len(below) - 1)])

    def share(self, below: float) -> float:
        """Return the fraction of voxels below a value."""
        return float(self.counts[self.values < below].sum() / self.counts.sum())

    def without_first(self) -> Histogram:
        """Return the same without its lowest value."""
        return Histogram(self.values[1:], self.counts[1:], self.broken)


def histogram(raw: npt.NDArray[Any], slope: float = 1.0, intercept: float = 0.0) -> Histogram:
    """Count the values of an image, scaled; integers of a CT's range exactly, others by a regular sample.

    Args:
        raw: stored values of any shape, real.
        slope: see `Volume`.
        intercept: see `Volume`.
    """
    flat = raw.ravel(order="K")
    broken = 0
    if flat.dtype.kind == "f":
        finite = np.isfinite(flat)
        broken = int(flat.size - np.count_nonzero(finite))
        if broken:
            flat = flat[finite]
    if not flat.size:
        return Histogram(np.zeros(0), np.zeros(0, dtype=np.int64), broken)
    low, high = flat.min(), flat.max()
    if flat.dtype.kind in "iub" and int(high) - int(low) < 1 << 20:
        counts = np.zeros(int(high) - int(low) + 1, dtype=np.int64)
        for start in range(0, flat.size, _SLAB):
            counts += np.bincount(flat[start : start + _SLAB].astype(np.int64) - int(low), minlength=len(counts))
        values = np.flatnonzero(counts)
        counts = counts[values]
        values = values + int(low)
    else:
        sample = np.concatenate([flat[:: max(1, flat.size // SAMPLE)], [low, high]])
        values, counts = np.unique(sample, return_counts=True)
    scaled = values.astype(np.float64) * slope + intercept
    order = slice(None, None, 1 if slope > 0 else -1)
    return Histogram(scaled[order], counts.astype(np.int64)[order], broken)


def summary(histogram: Histogram) -> dict[str, float | None]:
    """Return lowest and highest value and three percentiles; None if no value is finite."""
    if not len(histogram.values):
        return dict.fromkeys(("min", *PERCENTILES, "max"))
    percentiles = {name: histogram.percentile(fraction) for name, fraction in PERCENTILES.items()}
    return {"min": float(histogram.values[0]), **percentiles, "max": float(histogram.values[-1])}


def check_intensities(histogram: Histogram, location: object) -> list[Finding]:
    """Report what excludes that the values of an image are the HU of a CT, or makes it doubtful."""
    findings: list[Finding] = []
    if not len(histogram.values):
        return findings
    if len(histogram.values) == 1:
        message = f"every voxel is {histogram.values[0]:g}"
        return [*findings, error("constant", location, message, "Convert it again from its source.")]
    padding = _padding_below(histogram, location)
    if padding:
        findings.append(padding)
        histogram = histogram.without_first()
    not_hu = _not_hu(histogram, location)
    if not_hu:
        return [*findings, not_hu]
    findings += [doubt for doubt in (_range(histogram, location), _padding_inside(histogram, location)) if doubt]
    return findings + _truncated_range(histogram, location)


def is_hu(findings: list[Finding]) -> bool:
    """Return whether, after these findings, the values can be taken for HU."""
    return not {problem.code for problem in findings} & {"constant", "not-hu", "rescale-missing"}


def _padding_below(histogram: Histogram, location: object) -> Finding | None:
    value, share = histogram.values[0], histogram.counts[0] / histogram.counts.sum()
    if value >= VOID or len(histogram.values) < 3 or share < 1e-4 or histogram.values[1] - value < 20:
        return None
    message = f"{share:.1%} of its voxels are {value:g}, which is padding and no HU"
    return note("padding", location, message, "Clip to air (-1024).")


def _not_hu(histogram: Histogram, location: object) -> Finding | None:
    low, high = histogram.values[0], histogram.values[-1]
    integers = not np.mod(histogram.values, 1).any()
    range_text = f"its values run from {low:.4g} to {high:.4g}"
    air_like, tissue, shifted = (_between(histogram, start, start + 500) for start in (-1200, -200, 824))
    unscaled = low >= -50 and 900 <= histogram.percentile(0.995) < 5000 and high - low >= 30
    if unscaled or (tissue < 0.3 * shifted and shifted > 0.02 and high < 5000):
        message = f"{range_text}, and tissue lies 1024 too high: stored values (HU + 1024) that were never scaled"
        return finding("rescale-missing", location, message)
    if high - low < 30:
        scale = "0 to 1" if low >= 0 and high <= 1 else "-1 to 1" if low >= -1 and high <= 1 else "mean and deviation"
        reason = "as those of a mask or label map do" if integers else f"and were probably normalized ({scale})"
    elif low >= 0 and high <= 255:
        reason = "as those of an 8-bit image (0 to 255) or a label map do"
    elif low >= 0:
        reason = "and none is below water: this may be an MR, or a window was applied"
    elif tissue < 0.01:
        reason = "and hardly any is fat or soft tissue; they may have been rescaled twice"
    elif _between(histogram, 700, 1300) > 0.1 and air_like < 0.01 * _between(histogram, 700, 1300):
        reason = "and air lies at the upper end: they are inverted"
    else:
        return None
    return finding("not-hu", location, f"{range_text}, {reason}")


def _between(histogram: Histogram, low: float, high: float) -> float:
    """Return the fraction of voxels from `low` to below `high`."""
    return histogram.share(high) - histogram.share(low)


def _range(histogram: Histogram, location: object) -> Finding | None:
    low, high = histogram.percentile(0.005), histogram.percentile(0.995)
    if low >= VOID and high <= 4000:
        return None
    message = f"its values (0.5 to 99.5 %) run from {low:.4g} to {high:.4g}, those of a CT from -1024 to about 3000"
    return warning("hu-range", location, message, "Look at it, and check how it was converted.")


def _padding_inside(histogram: Histogram, location: object) -> Finding | None:
    """Report a single value, denser than air, that fills much of the image: probably outside the field of view."""
    peak = int(np.argmax(histogram.counts))
    value, share = histogram.values[peak], histogram.counts[peak] / histogram.counts.sum()
    if not 0 < peak < len(histogram.values) - 1 or value < -900 or share < 0.03 or not _is_spike(histogram, peak):
        return None
    message = f"{share:.1%} of its voxels are exactly {value:g} HU, which is no air but probably padding"
    return warning("padding", location, message, "Fill what lies outside the field of view with air (-1024).")


def _truncated_range(histogram: Histogram, location: object) -> list[Finding]:
    """Report values that pile up at the lowest or highest one, and images without air."""
    total, last = histogram.counts.sum(), len(histogram.values) - 1
    above, below = histogram.counts[last] / total, histogram.counts[0] / total
    piles = []
    if above >= 1e-3 and histogram.values[last] < SCANNER_LIMIT and _is_spike(histogram, last):
        piles.append((above, histogram.values[last], "above"))
    cut_below = histogram.values[0] > -900 and below >= 0.02 and _is_spike(histogram, 0)
    if cut_below:
        piles.append((below, histogram.values[0], "below"))
    findings = []
    for share, value, side in piles:
        message = f"{share:.2%} of its voxels are exactly {value:g} HU, because values {side} were clipped"
        findings.append(warning("saturated", location, message, "Convert it again from its source, without a window."))
    if not cut_below and histogram.share(AIR) < 1e-3:
        message = f"it shows no air: the lowest values are {histogram.percentile(0.005):.4g} HU (0.5 %)"
        fix = "Check that these are HU; a scan shows the air around the patient, or in the lungs or the gut."
        findings.append(warning("no-air", location, message, fix))
    return findings


def _is_spike(histogram: Histogram, index: int) -> bool:
    """Return whether a value occurs 20 times as often as the average of those within 10 HU."""
    close = np.abs(histogram.values - histogram.values[index]) <= 10
    close[index] = False
    return bool(histogram.counts[index] >= 20 * max(1.0, histogram.counts[close].sum() / 20))
