"""An evaluation as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from medseg.atomic import write_text
from medseg.report.charts import LinearAxis, axis_header, box_row
from medseg.report.overlays import ERROR_COLORS
from medseg.report.page import render
from medseg.units import invented, number

Content = Mapping[str, Any]
CaseImages = Mapping[str, Sequence[tuple[str, Image.Image]]]
_TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "relative_volume_error": "Volume error",
    "asd_mm": "ASD, mm",
    "hd95_mm": "HD95, mm",
    "hausdorff": "Hausdorff distance, share of the diagonal",
}
_KINDS = {"right": "correct", "missed": "missed", "false": "false", "confused": "another structure"}
LEFT_OUT = {
    "without_prediction": "Cases without a prediction, left out of every mean",
    "without_truth": "Predictions without a truth, left out",
    "not_predicted": "Structures of the truth that the predictions lack, not evaluated",
    "not_in_truth": "Predicted structures that no truth has, taken as background",
}
_MAX_ROWS = 40  # of the worst structures of single cases
_MAX_CASES = 2000


def save_evaluation_page(path: str | Path, content: Content, images: CaseImages) -> Path:
    """Write an evaluation as one HTML page.

    Args:
        path: the `.html` file.
        content: as `evaluation.json` has it.
        images: of cases, by id: named planes, shown in this order.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(path, evaluation_page(content, images))
    return Path(path)


def evaluation_page(content: Content, images: CaseImages) -> str:
    """Return the HTML of `save_evaluation_page`."""
    main = _main_measures(content)
    pairs = [(case["case"], row) for case in content["cases"] for row in case["structures"] if row["dice"] is not None]
    pairs.sort(key=lambda pair: (pair[1]["dice"], -max(pair[1]["truth_ml"] or 0, pair[1]["predicted_ml"] or 0)))
    return render(
        "evaluation",
        name=Path(str(content.get("prediction", ""))).name or "predictions",
        content=content,
        titles={measure: measure_title(measure) for measure in content["measures"]},
        digits=digits,
        invented=invented,
        count_state=lambda case, state: sum(row["state"] == state for row in case["structures"]),
        main=main,
        table_measures=[*main[:4], *(measure for measure in content["measures"] if measure not in main[:4])],
        left_out=LEFT_OUT,
        plots={measure: _box_rows(content, measure) for measure in main},
        images=images,
        error_kinds=[(ERROR_COLORS[kind], text) for kind, text in _KINDS.items()],
        cases=content["cases"][:_MAX_CASES],
        worst=pairs[:_MAX_ROWS],
        omitted=max(0, len(pairs) - _MAX_ROWS),
    )


def measure_title(measure: str) -> str:
    """Return a measure's name for people.

    >>> measure_title("nsd_3mm"), measure_title("hd95_mm")
    ('NSD at 3 mm', 'HD95, mm')
    """
    if measure.startswith("nsd_"):
        return f"NSD at {measure.removeprefix('nsd_').removesuffix('mm')} mm"
    return _TITLES.get(measure, measure)


def digits(value: float | None) -> str:
    """Return three decimals below 1, else three significant digits; a dash for None.

    >>> digits(0.93456), digits(12.34), digits(None)
    ('0.935', '12.3', '–')
    """
    if value is None:
        return "\u2013"
    return f"{value:.3f}".replace("-", "\u2212") if abs(value) < 1 else number(value)


def _main_measures(content: Content) -> list[str]:
    """Return the measures that are looked at first."""
    measures = content["measures"]
    first = ["dice", *(measure for measure in measures if measure.startswith("nsd_")), "hd95_mm", "asd_mm", "hausdorff"]
    return [measure for measure in first if measure in measures]


def _box_rows(content: Content, measure: str) -> dict[str, Any] | None:
    """Return a box plot of each structure, the worst mean first; None without any value."""
    values: dict[str, list[float]] = {row["structure"]: [] for row in content["structures"]}
    for case in content["cases"]:
        for row in case["structures"]:
            if row[measure] is not None:
                values[row["structure"]].append(float(row[measure]))
    everything = [value for of_structure in values.values() for value in of_structure]
    if not everything:
        return None
    is_distance = measure.endswith("_mm")
    lower_is_better = is_distance or measure == "hausdorff"
    means = {row["structure"]: row["measures"][measure]["mean"] for row in content["structures"]}
    names = [name for name in values if values[name]]
    names.sort(key=lambda name: -means[name] if lower_is_better else means[name])
    axis = LinearAxis(everything, share=not is_distance)
    unit = " mm" if is_distance else ""
    rows = [
        {"name": name, "mean": means[name], "n": len(values[name]), "svg": box_row(axis, values[name], name, unit)}
        for name in names
    ]
    return {"header": axis_header(axis), "rows": rows}
