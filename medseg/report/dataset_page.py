"""The dataset doctor's report as one HTML file: no other file, no network, light and dark, for screens of any width."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medseg.atomic import write_text
from medseg.report.charts import LogAxis, histogram, number
from medseg.report.page import data_url, page

SEVERITIES = ("error", "warning", "note")
_PLURAL = {"error": "errors", "warning": "warnings", "note": "notes"}
_BODY = (("LR", "across (left to right)"), ("PA", "depth (back to front)"), ("IS", "height (feet to head)"))
_MOST_PAIRS, _MOST_PICTURE_FINDINGS = 60, 4
# Even where something slipped through unescaped, the browser may neither load nor send anything.


def save_dataset_page(path: str | Path, report: Mapping[str, Any], pictures: Mapping[str, Image.Image]) -> Path:
    """Write what was found in a data set as one HTML page.

    Args:
        path: the `.html` file.
        report: the form that `DatasetReport.to_dict` gives: `root`, `cases`, `findings`, `overlaps`,
            `unannotated`, `absent`; `kind`, `checked` and `excluded` where they are known.
        pictures: a slice of cases, by id; they are shown in this order, each with its findings.

    Raises:
        OutputError: the place cannot be written.
    """
    write_text(path, dataset_page(report, pictures))
    return Path(path)


def dataset_page(report: Mapping[str, Any], pictures: Mapping[str, Image.Image]) -> str:
    """The HTML of `save_dataset_page`."""
    findings = [finding for finding in report.get("findings", []) if finding["severity"] in SEVERITIES]
    sections = [
        ("findings", "Findings", _findings(findings, pictures)),
        ("pictures", "Cases with findings", _pictures(findings, pictures)),
        ("measures", "Grid and intensities", _measures(report.get("cases", []))),
        ("structures", "Structures", _structures(report.get("cases", []))),
        ("overlaps", "Overlaps", _overlaps(report.get("overlaps", []))),
        ("annotation", "Not annotated, or absent", _annotation(report)),
        ("cases", "All cases", _cases(report.get("cases", []), findings)),
    ]
    root = str(report.get("root", ""))
    return page(
        f"Data check: {Path(root).name or root}", _header(report, findings), sections,
        "Written by medseg data check. Everything is in this one file.", ["dataset_page.css"], ["dataset_page.js"],
    )  # fmt: skip


def _header(report: Mapping[str, Any], findings: Sequence[Mapping[str, Any]]) -> str:
    counts = Counter(finding["severity"] for finding in findings)
    ids = {*report.get("checked", ()), *(case["id"] for case in report.get("cases", ()))}
    ids |= {finding["case"] for finding in findings if finding["case"]}
    ill = {finding["case"] for finding in findings if finding["severity"] == "error" and finding["case"]}
    total = len(report.get("checked") or ids)
    if ill:
        what = f"{len(ill)} of {total} cases {'has' if len(ill) == 1 else 'have'}"
        verdict = f'<p class="verdict bad">{what} an error and should be left out or mended</p>'
    elif counts["error"]:
        verdict = '<p class="verdict bad">The set as a whole has an error</p>'
    else:
        verdict = '<p class="verdict good">No error: every case can be used</p>'
    tiles = [("", total, "case" if total == 1 else "cases")]
    tiles += [(s, counts[s], s if counts[s] == 1 else _PLURAL[s]) for s in SEVERITIES]
    tiles += [("", len({n for case in report.get("cases", ()) for n in case["voxels"]}), "structures")]
    boxes = "".join(
        f'<div class="tile {name if count else ""}"><b>{number(count)}</b><span>{text}</span></div>'
        for name, count, text in tiles
    )
    kind = f", read as {escape(str(report['kind']))}" if report.get("kind") else ""
    return (
        f'<header><p class="eyebrow">Data check{kind}</p><h1 class="path">{escape(str(report.get("root", "")))}</h1>'
        f'{verdict}<div class="tiles">{boxes}</div></header>'
    )


def _badge(severity: str) -> str:
    return f'<span class="badge {severity}">{severity}</span>'


def _place(finding: Mapping[str, Any]) -> str:
    """Where it is, without the case's folder where the case stands beside it."""
    location, start = str(finding["place"]), f"{finding['case']}/"
    if not finding["case"]:
        return location
    return "" if location == finding["case"] else location.removeprefix(start)


def _ordered(findings: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding["severity"]))


def _findings(findings: Sequence[Mapping[str, Any]], pictures: Mapping[str, Image.Image]) -> str:
    if not findings:
        return (
            '<p class="none">Nothing was found: the files are whole, lie on their grids and hold what they should.</p>'
        )
    anchors = {id: f"picture-{index}" for index, id in enumerate(pictures)}
    rows = []
    for finding in _ordered(findings):
        case = escape(finding["case"])
        if finding["case"] in anchors:
            case = f'<a href="#{anchors[finding["case"]]}">{case}</a>'
        fix = f"<em>{escape(finding['remedy'])}</em>" if finding.get("remedy") else ""
        rows.append(
            f'<tr data-severity="{finding["severity"]}"><td>{_badge(finding["severity"])}</td>'
            f"<td><code>{escape(finding['code'])}</code></td><td>{case}</td>"
            f"<td>{escape(_place(finding))}</td><td>{escape(finding['message'])}{fix}</td></tr>"
        )
    present = [severity for severity in SEVERITIES if any(f["severity"] == severity for f in findings)]
    buttons = "".join(
        f'<button type="button" value="{severity}" aria-pressed="true">{_PLURAL[severity].capitalize()}</button>'
        for severity in present
    )
    kinds = Counter(finding["code"] for finding in _ordered(findings))
    chips = "".join(
        f'<button type="button" value="{escape(code)}">{escape(code)} <b>{count}</b></button>'
        for code, count in kinds.items()
    )
    return (
        '<div class="tools" data-script hidden><input id="search" type="search" aria-label="Search the findings" '
        f'placeholder="Search case, file, words">{buttons}<output id="shown"></output></div>'
        f'<div class="kinds" data-script hidden>{chips}</div>'
        '<div class="card scroll"><table class="findings"><thead><tr><th>Severity</th><th>Kind</th><th>Case</th>'
        f"<th>Place</th><th>What is so, and what to do</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _pictures(findings: Sequence[Mapping[str, Any]], pictures: Mapping[str, Image.Image]) -> str:
    by_case: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for finding in _ordered(findings):
        by_case[finding["case"]].append(finding)
    figures = []
    for index, (id, picture) in enumerate(pictures.items()):
        said = [f"<p>{_badge(f['severity'])} {escape(f['message'])}</p>" for f in by_case[id][:_MOST_PICTURE_FINDINGS]]
        more = len(by_case[id]) - len(said)
        said += [f"<p>and {more} more</p>"] if more > 0 else []
        figures.append(
            f'<figure id="picture-{index}"><div class="frame"><img src="{data_url(picture)}" loading="lazy" '
            f'width="{picture.width}" height="{picture.height}" alt="A slice of {escape(id, quote=True)}"></div>'
            f"<figcaption><b>{escape(id)}</b>{''.join(said)}</figcaption></figure>"
        )
    return f'<div class="pictures">{"".join(figures)}</div>' if figures else ""


def _along(case: Mapping[str, Any], key: str, letters: str) -> float:
    """What a case has along one axis of the body, whichever array axis that is."""
    axis = next((i for i, letter in enumerate(case["axes"]) if letter in letters), None)
    return float("nan") if axis is None else float(case[key][axis])


def _measures(cases: Sequence[Mapping[str, Any]]) -> str:
    if not cases:
        return ""
    charts = [
        *((f"Spacing {name}", "mm", [_along(case, "spacing", letters) for case in cases]) for letters, name in _BODY),
        *((f"Size {name}", "voxels", [_along(case, "shape", letters) for case in cases]) for letters, name in _BODY),
        *(
            (f"Intensity, {name}", "HU", [_hu(case, key) for case in cases])
            for key, name in (("p0.5", "0.5th percentile"), ("p50", "median"), ("p99.5", "99.5th percentile"))
        ),
    ]
    cards = []
    for title, unit, values in charts:
        known = [value for value in values if np.isfinite(value)]
        middle = f"<small>median {number(float(np.median(known)))} {unit}</small>" if known else ""
        cards.append(f'<div class="card"><h3>{title}{middle}</h3>{histogram(known, unit, title)}</div>')
    rows = (f'<div class="grid3">{"".join(cards[start : start + 3])}</div>' for start in range(0, len(cards), 3))
    return f'<p class="lead">Bars count cases; the line is the median.</p>{"".join(rows)}'


def _hu(case: Mapping[str, Any], key: str) -> float:
    values = case.get("hu") or {}
    value = values.get(key, values.get(key.replace(".", "_")))
    return float("nan") if value is None else float(value)


def _structures(cases: Sequence[Mapping[str, Any]]) -> str:
    ml: dict[str, list[float]] = defaultdict(list)
    voxels: dict[str, list[int]] = defaultdict(list)
    for case in cases:
        for name, count in case["voxels"].items():
            voxels[name].append(int(count))
            ml[name].append(float(case["ml"][name]))
    if not ml:
        return ""
    names = sorted(ml, key=lambda name: (-float(np.median(ml[name])), name))
    axis = LogAxis([value for values in ml.values() for value in values])
    rows = [
        f'<div class="head">structure</div><div class="head">{axis.header()}</div>'
        '<div class="head n">median ml</div><div class="head n cases">cases</div>'
    ]
    rows += [
        f"<div><span>{escape(name).replace('_', '_<wbr>')}</span></div><div>{axis.strip(ml[name], name)}</div>"
        f'<div class="n">{number(float(np.median(ml[name])))}</div><div class="n cases">{len(ml[name])}</div>'
        for name in names
    ]
    table = "".join(
        f'<tr><td>{escape(name)}</td><td class="n">{len(ml[name])}</td><td class="n">{number(min(ml[name]))}</td>'
        f'<td class="n">{number(float(np.median(ml[name])))}</td><td class="n">{number(max(ml[name]))}</td>'
        f'<td class="n wide">{number(min(voxels[name]))}</td>'
        f'<td class="n wide">{number(float(np.median(voxels[name])))}</td>'
        f'<td class="n wide">{number(max(voxels[name]))}</td></tr>'
        for name in names
    )
    return (
        '<p class="lead">Volume in ml of each structure where it occurs, on a logarithmic axis, the largest first: '
        "a dot for each case (where there are many, for the least and the most), a box round the middle half, "
        "a line at the median.</p>"
        f'<div class="card scroll"><div class="strips">{"".join(rows)}</div></div>'
        '<details class="card" style="margin-top:12px"><summary>The same as numbers, with voxels</summary>'
        '<div class="scroll"><table><thead><tr><th>Structure</th><th class="n">Cases</th><th class="n">ml, least</th>'
        '<th class="n">median</th><th class="n">most</th><th class="n wide">Voxels, least</th>'
        f'<th class="n wide">median</th><th class="n wide">most</th></tr></thead><tbody>{table}</tbody></table>'
        "</div></details>"
    )


def _overlaps(overlaps: Sequence[Mapping[str, Any]]) -> str:
    pairs = []
    for entry in overlaps:
        one, other = entry["structures"] if "structures" in entry else (entry["a"], entry["b"])
        pairs.append((str(one), str(other), int(entry["voxels"])))
    if not pairs:
        return ""
    pairs.sort(key=lambda pair: -pair[2])
    most = pairs[0][2] or 1
    rows = "".join(
        f'<tr><td>{escape(one)}</td><td>{escape(other)}</td><td class="n">{number(voxels)}</td>'
        f'<td class="wide"><span class="meter"><i style="width:{100 * voxels / most:.1f}%"></i></span></td></tr>'
        for one, other, voxels in pairs[:_MOST_PAIRS]
    )
    rest = sum(voxels for _, _, voxels in pairs[_MOST_PAIRS:])
    more = f'<p class="lead">And {len(pairs) - _MOST_PAIRS} pairs more, {number(rest)} voxels.</p>' if rest else ""
    return (
        '<p class="lead">Voxels that two structures both claim, over all cases. '
        "Where masks are merged, one of them gives way there.</p>"
        '<div class="card scroll"><table><thead><tr><th>One</th><th>Other</th><th class="n">Voxels</th>'
        f'<th class="wide"></th></tr></thead><tbody>{rows}</tbody></table></div>{more}'
    )


def _annotation(report: Mapping[str, Any]) -> str:
    unannotated, absent = report.get("unannotated", {}), report.get("absent", {})
    ids = sorted({*(id for id, names in unannotated.items() if names), *(id for id, names in absent.items() if names)})
    if not ids:
        return ""
    rows = "".join(
        f"<tr><td>{escape(id)}</td><td>{_names(unannotated.get(id, ()))}</td><td>{_names(absent.get(id, ()))}</td></tr>"
        for id in ids
    )
    return (
        '<p class="lead">Not annotated: the set has the structure, but this case has no file for it, so nobody may '
        "have looked. Absent: somebody looked, and it is not in the picture.</p>"
        '<div class="card scroll"><table><thead><tr><th>Case</th><th>Not annotated</th><th>Absent</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _names(names: Sequence[str]) -> str:
    text = escape(", ".join(names))
    return text if len(names) <= 3 else f"<details><summary>{len(names)} structures</summary>{text}</details>"


def _cases(cases: Sequence[Mapping[str, Any]], findings: Sequence[Mapping[str, Any]]) -> str:
    if not cases:
        return ""
    worst: dict[str, str] = {}
    for finding in _ordered(findings):
        worst.setdefault(finding["case"], finding["severity"])
    rows = "".join(
        f"<tr><td>{escape(case['id'])}</td><td>{_badge(worst[case['id']]) if case['id'] in worst else ''}</td>"
        f'<td class="n">{" × ".join(str(size) for size in case["shape"])}</td>'
        f'<td class="n">{" × ".join(number(float(size)) for size in case["spacing"])}</td>'
        f'<td class="wide">{escape(case["axes"])}</td>'
        f'<td class="n wide">{_span(case)}</td><td class="n wide">{len(case["voxels"])}</td></tr>'
        for case in cases
    )
    return (
        '<div class="card scroll"><table><thead><tr><th>Case</th><th>Worst finding</th><th class="n">Voxels</th>'
        '<th class="n">Spacing, mm</th><th class="wide">Axes</th><th class="n wide">HU, 0.5th to 99.5th percentile</th>'
        f'<th class="n wide">Structures</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _span(case: Mapping[str, Any]) -> str:
    low, high = _hu(case, "p0.5"), _hu(case, "p99.5")
    return f"{number(low)} to {number(high)}" if np.isfinite(low) and np.isfinite(high) else ""
