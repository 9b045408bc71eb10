"""An evaluation as one HTML file: no other file, no network, light and dark, for screens of any width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from medseg.atomic import write_text
from medseg.report.boxes import LinearAxis
from medseg.report.charts import number
from medseg.report.page import data_url, page
from medseg.report.render import ERROR_COLORS

Pictures = Mapping[str, Sequence[tuple[str, Image.Image]]]
_NAMES = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "relative_volume_error": "Volume error",
    "asd_mm": "ASD, mm",
    "hd95_mm": "HD95, mm",
}
_MOST_ROWS, _WORST_STRUCTURES, _MOST_CELLS = 40, 3, 2000
_LEGEND = {"right": "right", "missed": "missed", "false": "false", "confused": "another structure"}
# Even where something slipped through unescaped, the browser may neither load nor send anything.


def save_evaluation_page(path: str | Path, content: Mapping[str, Any], pictures: Pictures) -> Path:
    """Write an evaluation as one HTML page.

    Args:
        path: the `.html` file.
        content: what `evaluation.json` holds.
        pictures: of cases, by id: named planes, shown in this order.

    Raises:
        OutputError: the place cannot be written.
    """
    write_text(path, evaluation_page(content, pictures))
    return Path(path)


def evaluation_page(content: Mapping[str, Any], pictures: Pictures) -> str:
    """The HTML of `save_evaluation_page`."""
    sections = [
        ("notes", "To be known", _notes(content)),
        ("structures", "Structures", _boxes(content)),
        ("pictures", "Worst cases", _pictures(content, pictures)),
        ("table", "Means by structure", _structures(content)),
        ("cases", "Cases", _cases(content)),
        ("worst", "Worst of all", _worst(content)),
    ]
    title = Path(str(content.get("prediction", ""))).name or "predictions"
    return page(
        f"Evaluation: {title}", _header(content), sections,
        "Written by medseg evaluate. Everything is in this one file.",
        ["dataset_page.css", "evaluation_page.css"], ["tables.js", "evaluation_page.js"],
    )  # fmt: skip


def measure_title(measure: str) -> str:
    """A measure's name for people.

    >>> measure_title("nsd_3mm"), measure_title("hd95_mm")
    ('NSD at 3 mm', 'HD95, mm')
    """
    if measure.startswith("nsd_"):
        return f"NSD at {measure.removeprefix('nsd_').removesuffix('mm')} mm"
    return _NAMES.get(measure, measure)


def digits(value: float | None) -> str:
    """Three decimals below 1, else three significant digits; a dash for none.

    >>> digits(0.93456), digits(12.34), digits(None)
    ('0.935', '12.3', '–')
    """
    if value is None:
        return "\u2013"
    return f"{value:.3f}".replace("-", "\u2212") if abs(value) < 1 else number(value)


def _shown(content: Mapping[str, Any]) -> list[str]:
    """The measures that are looked at first."""
    measures = content["measures"]
    first = ["dice", *(one for one in measures if one.startswith("nsd_")), "hd95_mm", "asd_mm"]
    return [one for one in first if one in measures]


def _header(content: Mapping[str, Any]) -> str:
    boxes = []
    for measure in _shown(content):
        one = content["mean"][measure]
        span = "" if one["low"] is None else f"<small>{digits(one['low'])} to {digits(one['high'])}</small>"
        boxes.append(f'<div class="tile"><b>{digits(one["mean"])}</b><span>{measure_title(measure)}</span>{span}</div>')
    cases, structures = len(content["cases"]), len(content["structures"])
    counts = f"{cases} {'case' if cases == 1 else 'cases'}, {structures} structures"
    samples = content["bootstrap"]["samples"]
    return (
        f'<header><p class="eyebrow">Evaluation, {counts}</p>'
        f'<h1 class="path">{escape(str(content["prediction"]))}</h1>'
        f'<p class="lead">held against <span class="path">{escape(str(content["truth"]))}</span></p>'
        f'<div class="tiles">{"".join(boxes)}</div><p class="lead small">Means over structures, of each structure over '
        "the cases in which it has a value; below them the middle 95 % of "
        f"{number(samples)} bootstrap samples of whole cases.</p></header>"
    )


def _notes(content: Mapping[str, Any]) -> str:
    lines = [
        f"<p>{_badge('error', 'error')} <b>{escape(case)}</b> could not be evaluated: {escape(why)}</p>"
        for case, why in content["failed"].items()
    ]
    for key, said in (
        ("without_prediction", "Cases without a prediction, left out of every mean"),
        ("without_truth", "Predictions without a truth, left out"),
        ("not_predicted", "Structures of the truth that the predictions do not know, not evaluated"),
        ("not_in_truth", "Predicted structures that no truth knows, taken as background"),
    ):
        if content[key]:
            names = f"<details><summary>Which</summary>{escape(', '.join(content[key]))}</details>"
            lines.append(f"<div>{_badge('warning', 'left out')} {said}: {len(content[key])}. {names}</div>")
    for case in content["cases"]:
        lines += [f"<p>{_badge('note', 'note')} <b>{escape(case['case'])}</b>: {escape(n)}</p>" for n in case["notes"]]
    return f'<div class="card notes">{"".join(lines)}</div>' if lines else ""


def _badge(kind: str, text: str) -> str:
    return f'<span class="badge {kind}">{text}</span>'


def _name(name: str) -> str:
    return escape(name).replace("_", "_<wbr>")


def _boxes(content: Mapping[str, Any]) -> str:
    measures = _shown(content)
    buttons = "".join(
        f'<button type="button" value="{measure}" aria-pressed="{"true" if measure == "dice" else "false"}">'
        f"{measure_title(measure)}</button>"
        for measure in measures
    )
    blocks = "".join(
        f'<div class="plots" data-measure="{measure}"><h3 data-noscript>{measure_title(measure)}</h3>'
        f'<div class="card scroll"><div class="strips">{_strips(content, measure)}</div></div></div>'
        for measure in measures
    )
    return (
        '<p class="lead">A dot for each case where there are few, whiskers to the least and the most, a box round the '
        "middle half, a line at the median; the structure with the worst mean first. A structure that is in neither "
        "truth nor prediction has no value; one in the truth alone, or in the prediction alone, has Dice and NSD 0 and "
        "no distance. n counts the values.</p>"
        f'<div class="tools measures" data-script hidden>{buttons}</div>{blocks}'
    )


def _strips(content: Mapping[str, Any], measure: str) -> str:
    values: dict[str, list[float]] = {one["structure"]: [] for one in content["structures"]}
    for case in content["cases"]:
        for row in case["structures"]:
            if row[measure] is not None:
                values[row["structure"]].append(float(row[measure]))
    everything = [value for ones in values.values() for value in ones]
    if not everything:
        return '<p class="none">No values</p>'
    sign = -1 if measure.endswith("_mm") else 1
    means = {one["structure"]: one["measures"][measure]["mean"] for one in content["structures"]}
    names = sorted((name for name in values if values[name]), key=lambda name: sign * means[name])
    axis = LinearAxis(everything, share=not measure.endswith("_mm"))
    unit = " mm" if measure.endswith("_mm") else ""
    rows = [
        f'<div class="head">structure</div><div class="head">{axis.header()}</div>'
        '<div class="head n">mean</div><div class="head n cases">n</div>'
    ]
    rows += [
        f"<div><span>{_name(name)}</span></div><div>{axis.box(values[name], name, unit)}</div>"
        f'<div class="n">{digits(means[name])}</div><div class="n cases">{len(values[name])}</div>'
        for name in names
    ]
    return "".join(rows)


def _pictures(content: Mapping[str, Any], pictures: Pictures) -> str:
    if not pictures:
        return ""
    colours = "".join(
        f'<span><i style="background:rgb{ERROR_COLORS[kind]}"></i>{text}</span>' for kind, text in _LEGEND.items()
    )
    figures = []
    for case in content["cases"]:
        planes = pictures.get(case["case"])
        if planes is None:
            continue
        images = "".join(
            f'<div class="frame"><img src="{data_url(picture)}" loading="lazy" width="{picture.width}" '
            f'height="{picture.height}" alt="{escape(case["case"], quote=True)}, {name}"></div>'
            for name, picture in planes
        )
        rows = sorted((row for row in case["structures"] if row["dice"] is not None), key=lambda row: row["dice"])
        said = "".join(
            f"<p>{digits(row['dice'])} {_name(row['structure'])}{_state(row['state'])}</p>"
            for row in rows[:_WORST_STRUCTURES]
        )
        figures.append(
            f'<figure class="planes"><div class="row">{images}</div><figcaption><b>{escape(case["case"])}</b>'
            f"<p>Mean Dice {digits(case['mean']['dice'])}. The worst:</p>{said}</figcaption></figure>"
        )
    return (
        '<p class="lead">Each plane lies where most voxels of its direction are wrong: axial, coronal, sagittal.</p>'
        f'<p class="legend">{colours}</p>{"".join(figures)}'
    )


def _state(state: str) -> str:
    kind = {"missed": "error", "false positive": "warning"}.get(state)
    return f" {_badge(kind, state)}" if kind else ""


def _cell(value: float | None, detail: str = "", wide: bool = False) -> str:
    sort = "" if value is None else f"{value:.6g}"
    more = f"<small>{detail}</small>" if detail else ""
    return f'<td class="n{" wide" if wide else ""}" data-value="{sort}">{digits(value)}{more}</td>'


def _count(value: int) -> str:
    return f'<td class="n" data-value="{value}">{value}</td>'


def _head(*columns: tuple[str, bool, bool]) -> str:
    """A row of column heads, each with whether it holds numbers and whether small screens leave it out."""
    cells = "".join(
        f'<th class="{"n" if numeric else ""}{" wide" if wide else ""}">'
        f'<button type="button">{escape(text)}</button></th>'
        for text, numeric, wide in columns
    )
    return f"<thead><tr>{cells}</tr></thead>"


def _structures(content: Mapping[str, Any]) -> str:
    first = _shown(content)[:4]
    measures = [*first, *(measure for measure in content["measures"] if measure not in first)]
    rows = []
    for one in content["structures"]:
        cells = []
        for measure in measures:
            found = one["measures"][measure]
            span = "" if found["low"] is None else f"{digits(found['low'])} to {digits(found['high'])}"
            cells.append(_cell(found["mean"], span, measure not in first[:1]))
        counts = "".join(_count(one[key]) for key in ("present", "missed", "false_positive"))
        rows.append(f"<tr><td>{_name(one['structure'])}</td>{''.join(cells[:1])}{counts}{''.join(cells[1:])}</tr>")
    columns = [(measure_title(measure), True, measure not in first[:1]) for measure in measures]
    head = _head(
        ("Structure", False, False),
        *columns[:1],
        *((text, True, False) for text in ("Present", "Missed", "False")),
        *columns[1:],
    )
    return (
        '<p class="lead">Present: cases whose truth has the structure. Missed: of these, where nothing of it was '
        "predicted. False: where it was predicted and the truth has none. Click on a column to sort.</p>"
        '<div class="tools" data-script hidden><input class="search" type="search" aria-label="Search structures" '
        'placeholder="Search structures"></div>'
        f'<div class="card scroll"><table class="sortable">{head}<tbody>{"".join(rows)}</tbody></table></div>'
    )


def _cases(content: Mapping[str, Any]) -> str:
    measures = _shown(content)
    rows = "".join(
        f"<tr><td>{escape(case['case'])}</td>"
        + "".join(_cell(case["mean"][measure], wide=index > 1) for index, measure in enumerate(measures))
        + _count(sum(row["state"] == "missed" for row in case["structures"]))
        + _count(sum(row["state"] == "false positive" for row in case["structures"]))
        + "</tr>"
        for case in content["cases"][:_MOST_CELLS]
    )
    head = _head(
        ("Case", False, False),
        *((measure_title(measure), True, index > 1) for index, measure in enumerate(measures)),
        ("Missed", True, False),
        ("False", True, False),
    )
    return (
        '<p class="lead">Means over the structures that have a value; how many were missed, and how many are false.</p>'
        f'<div class="card scroll"><table class="sortable">{head}<tbody>{rows}</tbody></table></div>'
    )


def _worst(content: Mapping[str, Any]) -> str:
    everything = [
        (case["case"], row) for case in content["cases"] for row in case["structures"] if row["dice"] is not None
    ]
    everything.sort(key=lambda pair: (pair[1]["dice"], -max(pair[1]["truth_ml"], pair[1]["predicted_ml"])))
    hd = "hd95_mm" in content["measures"]
    rows = "".join(
        f"<tr><td>{escape(case)}</td><td>{_name(row['structure'])}{_state(row['state'])}</td>"
        f"{_cell(row['dice'])}{_cell(row['hd95_mm'], wide=True) if hd else ''}"
        f"{_cell(row['truth_ml'])}{_cell(row['predicted_ml'])}</tr>"
        for case, row in everything[:_MOST_ROWS]
    )
    head = _head(
        ("Case", False, False),
        ("Structure", False, False),
        ("Dice", True, False),
        *((("HD95, mm", True, True),) if hd else ()),
        ("Truth, ml", True, False),
        ("Predicted, ml", True, False),
    )
    more = len(everything) - _MOST_ROWS
    rest = f'<p class="lead small">And {number(more)} more in scores.csv.</p>' if more > 0 else ""
    return (
        '<p class="lead">Structures of single cases, the lowest Dice first, the large ones first where it is equal.</p>'
        f'<div class="card scroll"><table class="sortable">{head}<tbody>{rows}</tbody></table></div>{rest}'
    )
