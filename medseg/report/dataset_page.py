"""The findings of a data set check as one HTML page."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medseg.atomic import write_text
from medseg.findings import SEVERITIES
from medseg.report.charts import LogAxis, axis_header, box_row, histogram
from medseg.report.page import render
from medseg.units import number

Report = Mapping[str, Any]
_BODY_AXES = (("LR", "across (left to right)"), ("PA", "depth (back to front)"), ("IS", "height (feet to head)"))
_PERCENTILES = (("p0.5", "0.5th percentile"), ("p50", "median"), ("p99.5", "99.5th percentile"))
_MAX_PAIRS = 60


def save_dataset_page(path: str | Path, report: Report, images: Mapping[str, Image.Image]) -> Path:
    """Write the result of a data set check as one HTML page.

    Args:
        path: the `.html` file.
        report: as `DatasetReport.to_dict` gives it: `root`, `cases`, `findings`, `overlaps`, `unannotated`, `absent`;
            `kind`, `checked` and `excluded` if they are known.
        images: a slice of cases, by id; shown in this order, each with its findings.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(path, dataset_page(report, images))
    return Path(path)


def dataset_page(report: Report, images: Mapping[str, Image.Image]) -> str:
    """Return the HTML of `save_dataset_page`."""
    findings = [finding for finding in report.get("findings", []) if finding["severity"] in SEVERITIES]
    findings.sort(key=lambda finding: SEVERITIES.index(finding["severity"]))
    cases = report.get("cases", [])
    root = str(report.get("root", ""))
    worst: dict[str, str] = {}
    for finding in findings:
        worst.setdefault(finding["case"], finding["severity"])
    return render(
        "dataset",
        report=report,
        name=Path(root).name or root,
        verdict=_verdict(report, findings),
        counts=Counter(finding["severity"] for finding in findings),
        kinds=Counter(finding["code"] for finding in findings),
        total=_total(report, findings),
        structures=len({name for case in cases for name in case["voxels"]}),
        severities=SEVERITIES,
        findings=findings,
        images=images,
        anchors={case: f"image-{index}" for index, case in enumerate(images)},
        charts=_measure_charts(cases),
        volumes=_volumes(cases),
        overlaps=_overlaps(report.get("overlaps", [])),
        annotation=_annotation(report),
        worst=worst,
        hu_span=_hu_span,
    )


def _total(report: Report, findings: Sequence[Report]) -> int:
    """Return the number of cases, also of those that could not be read."""
    ids = {case["id"] for case in report.get("cases", ())}
    ids |= {finding["case"] for finding in findings if finding["case"]}
    return len(report.get("checked") or ids)


def _verdict(report: Report, findings: Sequence[Report]) -> tuple[str, str]:
    """Return the kind and the text of the verdict."""
    errors = [finding for finding in findings if finding["severity"] == "error"]
    faulty = {finding["case"] for finding in errors if finding["case"]}
    if faulty:
        have = "has" if len(faulty) == 1 else "have"
        text = f"{len(faulty)} of {_total(report, findings)} cases {have} an error: correct or exclude them"
        return "bad", text
    if errors:
        return "bad", "The data set as a whole has an error"
    return "good", "No error: every case can be used"


def _measure_charts(cases: Sequence[Report]) -> list[list[dict[str, Any]]]:
    """Return rows of charts: spacing, size, intensities."""
    if not cases:
        return []
    spacing = [
        (f"Spacing {name}", "mm", [_along(case, "spacing", axis) for case in cases]) for axis, name in _BODY_AXES
    ]
    size = [(f"Size {name}", "voxels", [_along(case, "shape", axis) for case in cases]) for axis, name in _BODY_AXES]
    intensity = [(f"Intensity, {name}", "HU", [_hu(case, key) for case in cases]) for key, name in _PERCENTILES]
    return [[_measure_chart(*chart) for chart in row] for row in (spacing, size, intensity)]


def _measure_chart(title: str, unit: str, values: Sequence[float]) -> dict[str, Any]:
    finite = [value for value in values if np.isfinite(value)]
    median = f"median {number(float(np.median(finite)))} {unit}" if finite else ""
    return {"title": title, "median": median, "svg": histogram(finite, unit, title)}


def _along(case: Report, key: str, letters: str) -> float:
    """Return the value of a case along one axis of the body, whichever array axis that is."""
    axis = next((i for i, letter in enumerate(case["axes"]) if letter in letters), None)
    return float("nan") if axis is None else float(case[key][axis])


def _hu(case: Report, key: str) -> float:
    values = case.get("hu") or {}
    value = values.get(key, values.get(key.replace(".", "_")))
    return float("nan") if value is None else float(value)


def _hu_span(case: Report) -> str:
    low, high = _hu(case, "p0.5"), _hu(case, "p99.5")
    return f"{number(low)} to {number(high)}" if np.isfinite(low) and np.isfinite(high) else ""


def _volumes(cases: Sequence[Report]) -> dict[str, Any] | None:
    """Return the volumes of all structures, the largest first; None without structures."""
    ml: dict[str, list[float]] = defaultdict(list)
    voxels: dict[str, list[int]] = defaultdict(list)
    for case in cases:
        for name, count in case["voxels"].items():
            voxels[name].append(int(count))
            ml[name].append(float(case["ml"][name]))
    if not ml:
        return None
    axis = LogAxis([value for values in ml.values() for value in values])
    rows = [
        {"name": name, "n": len(ml[name]), "ml": _spread(ml[name]), "voxels": _spread(voxels[name])}
        | {"svg": box_row(axis, ml[name], name, " ml")}
        for name in sorted(ml, key=lambda name: (-float(np.median(ml[name])), name))
    ]
    return {"header": axis_header(axis), "rows": rows}


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return minimum, median and maximum."""
    return min(values), float(np.median(values)), max(values)


def _overlaps(overlaps: Sequence[Report]) -> dict[str, Any] | None:
    """Return the pairs of structures that claim the same voxels, the most voxels first; None without any."""
    pairs = []
    for entry in overlaps:
        first, second = entry["structures"] if "structures" in entry else (entry["a"], entry["b"])
        pairs.append((str(first), str(second), int(entry["voxels"])))
    if not pairs:
        return None
    pairs.sort(key=lambda pair: -pair[2])
    omitted = pairs[_MAX_PAIRS:]
    return {
        "pairs": pairs[:_MAX_PAIRS],
        "most": pairs[0][2] or 1,
        "omitted": len(omitted),
        "omitted_voxels": sum(voxels for _, _, voxels in omitted),
    }


def _annotation(report: Report) -> list[tuple[str, Sequence[str], Sequence[str]]]:
    """Return each case with its structures that are not annotated, and those that are absent."""
    unannotated, absent = report.get("unannotated", {}), report.get("absent", {})
    ids = sorted({case for names in (unannotated, absent) for case, structures in names.items() if structures})
    return [(case, list(unannotated.get(case, ())), list(absent.get(case, ()))) for case in ids]
