"""Whether the values of an image can be the HU of a CT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.findings import Finding, error, note, warning

AIR = -500.0  # HU; below it there is air or lung, nothing else
VOID = -1100.0  # HU; below it there is nothing at all, only padding
TISSUE = (-300.0, 300.0)  # HU; most of a patient lies between
SAMPLE = 1 << 21  # voxels looked at where values cannot be counted one by one
_SLAB = 1 << 20
PERCENTILES = {"p0_5": 0.005, "p50": 0.5, "p99_5": 0.995}


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often each value occurs.

    Args:
        values: the finite values that occur, ascending, HU if the image is a CT.
        counts: how often; of a sample where the image holds other than whole numbers.
        broken: voxels that are NaN or infinite.
    """

    values: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    broken: int = 0

    def percentile(self, fraction: float) -> float:
        """The value that this fraction of the voxels does not exceed."""
        below = np.cumsum(self.counts)
        return float(self.values[np.searchsorted(below, fraction * below[-1], side="left").clip(0, len(below) - 1)])

    def share(self, below: float) -> float:
        """The fraction of voxels below a value."""
        return float(self.counts[self.values < below].sum() / self.counts.sum())

    def without_first(self) -> Histogram:
        """The same without its lowest value."""
        return Histogram(self.values[1:], self.counts[1:], self.broken)


def histogram(raw: npt.NDArray[Any], slope: float = 1.0, intercept: float = 0.0) -> Histogram:
    """Count the values of an image, scaled; whole numbers of a CT's range exactly, others by an even sample.

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


def summary(found: Histogram) -> dict[str, float | None]:
    """Lowest and highest value and three percentiles; None where no value is finite."""
    if not len(found.values):
        return dict.fromkeys(("min", *PERCENTILES, "max"))
    percentiles = {name: found.percentile(fraction) for name, fraction in PERCENTILES.items()}
    return {"min": float(found.values[0]), **percentiles, "max": float(found.values[-1])}


def examine(found: Histogram, location: object) -> list[Finding]:
    """What keeps the values of an image from being the HU of a CT, or makes that doubtful."""
    out = []
    if found.broken:
        out.append(error("nan", location, f"{found.broken} voxels are NaN or infinite", "Replace them by air (-1024)."))
    if not len(found.values):
        return out
    if len(found.values) == 1:
        return [*out, error("constant", location, f"every voxel is {found.values[0]:g}", "Convert it from its source.")]
    padding = _padding_below(found, location)
    if padding:
        out.append(padding)
        found = found.without_first()
    wrong = _not_hu(found, location)
    if wrong:
        return [*out, wrong]
    return (
        out
        + [finding for finding in (_range(found, location), _padding_inside(found, location)) if finding]
        + _cut(found, location)
    )


def is_hu(findings: list[Finding]) -> bool:
    """Whether, after these findings, the values may still be taken for HU."""
    return not {finding.code for finding in findings} & {"constant", "not-hu", "rescale-missing"}


def _padding_below(found: Histogram, location: object) -> Finding | None:
    value, share = found.values[0], found.counts[0] / found.counts.sum()
    if value >= VOID or len(found.values) < 3 or share < 1e-4 or found.values[1] - value < 20:
        return None
    return note("padding", location, f"{share:.1%} of its voxels are {value:g}, no HU but padding", "Clip to air.")


def _not_hu(found: Histogram, location: object) -> Finding | None:
    low, high = found.values[0], found.values[-1]
    top = found.percentile(0.995)
    printable = f"its values run from {low:.4g} to {high:.4g}"
    source = "Convert it again from its source, as HU."
    if high - low < 30:
        return error("not-hu", location, f"{printable}, no HU: normalised, or a mask?", source)
    if low >= 0 and high <= 255:
        return error("not-hu", location, f"{printable}, no HU: a picture of 8 bits?", source)
    if low >= -10 and 900 <= top < 5000:
        return error(
            "rescale-missing",
            location,
            f"{printable}, as if stored values had never been scaled to HU",
            "Apply the rescale intercept of its DICOM files (usually -1024).",
        )
    if low >= 0:
        return error("not-hu", location, f"{printable}: nothing below water, so no HU", source)
    if found.share(TISSUE[1]) - found.share(TISSUE[0]) < 0.01:
        return error(
            "not-hu",
            location,
            f"{printable}, hardly any of them fat or soft tissue: rescaled twice?",
            source,
        )
    return None


def _range(found: Histogram, location: object) -> Finding | None:
    low, high = found.percentile(0.005), found.percentile(0.995)
    if low >= VOID and high <= 4000:
        return None
    return warning(
        "hu-range",
        location,
        f"its values (0.5 to 99.5 %) run from {low:.4g} to {high:.4g}, a CT's from -1024 to about 3000",
        "Look at it, and at how it was converted.",
    )


def _padding_inside(found: Histogram, location: object) -> Finding | None:
    """A single value, denser than air, that fills much of the image: outside of the field of view, most likely."""
    peak = int(np.argmax(found.counts))
    share = found.counts[peak] / found.counts.sum()
    if not 0 < peak < len(found.values) - 1 or found.values[peak] < -900 or share < 0.03:
        return None
    if not _is_spike(found, peak):
        return None
    return warning(
        "padding",
        location,
        f"{share:.1%} of its voxels are exactly {found.values[peak]:g} HU, which is no air: padding?",
        "Fill what lies outside of the field of view with air (-1024).",
    )


def _cut(found: Histogram, location: object) -> list[Finding]:
    """Values that end in a heap, low or high, and images without air."""
    out = []
    total = found.counts.sum()
    last = len(found.values) - 1
    if found.counts[last] / total >= 1e-3 and _is_spike(found, last):
        out.append((found.counts[last] / total, found.values[last], "above"))
    if found.values[0] > -900 and found.counts[0] / total >= 0.02 and _is_spike(found, 0):
        out.append((found.counts[0] / total, found.values[0], "below"))
    cut = [
        warning(
            "saturated",
            location,
            f"{share:.2%} of its voxels are exactly {value:g} HU: what lay {side} was cut off",
            "Convert it again from its source, without a window.",
        )
        for share, value, side in out
    ]
    if not any(side == "below" for _, _, side in out) and found.share(AIR) < 1e-3:
        cut.append(
            warning(
                "no-air",
                location,
                f"no air in it: the lowest values are {found.percentile(0.005):.4g} HU (0.5 %)",
                "See that these are HU; a scan shows the air around the patient, or in the lungs or the gut.",
            )
        )
    return cut


def _is_spike(found: Histogram, index: int) -> bool:
    """Whether a value occurs 20 times as often as those near it do on average."""
    near = np.abs(found.values - found.values[index]) <= 10
    near[index] = False
    return bool(found.counts[index] >= 20 * max(1.0, found.counts[near].sum() / 20))
