"""Dice by structure over a run, as a table to sort and search."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from medseg.report.charts import histogram
from medseg.report.curves import spark
from medseg.report.run_data import RunData, number_of

_POOR = 0.5
_NONE = "\u2013"


def structures(run: RunData) -> str:
    """How the Dice of the structures lies, and the table: the last and the best Dice of each, and its curve."""
    rows = run.of("validation")
    series = by_structure(run, "dice")
    if not series:
        return ""
    f1 = by_structure(run, "f1")
    epochs = [number_of(row.get("epoch")) for row in rows]
    order = sorted(series, key=lambda name: (_last(series[name]) is None, _last(series[name]) or 0.0, name))
    last = [value for name in order if (value := _last(series[name])) is not None]
    lines = "".join(_row(name, series[name], f1.get(name) if f1 else None, epochs, bool(f1)) for name in order)
    poor = sum(value < _POOR for value in last)
    zero = sum(value == 0 for value in last)
    none = len(order) - len(last)
    chips = "".join(
        f'<button type="button" value="{kind}" aria-pressed="{"true" if kind == "all" else "false"}">'
        f"{text} <b>{count}</b></button>"
        for kind, text, count in (
            ("all", "All", len(order)), ("poor", "Under 0.5", poor), ("zero", "0", zero), ("none", "No value", none)
        )
        if count
    )  # fmt: skip
    heads = ["Structure", "Last", *(["F1, last"] if f1 else []), "Best", "in epoch", "Over epochs"]
    head = "".join(
        f'<th class="{"n" if 0 < index < len(heads) - 1 else ""}{" wide" if text in ("in epoch", "F1, last") else ""}">'
        + (f'<button type="button">{text}</button>' if index < len(heads) - 1 else text)
        + "</th>"
        for index, text in enumerate(heads)
    )
    chart = (
        f'<div class="card"><h3>Dice of the structures, last validation</h3>'
        f"{histogram(last, '', 'Dice of the structures', ('structure', 'structures'))}</div>"
        if len(last) > 4
        else ""
    )
    return (
        '<p class="lead">Last and best Dice of each on the validation cases, the worst first; no value where a '
        "structure was in neither truth nor prediction of any case. Curves go from 0 to 1.</p>"
        f'{chart}<div class="tools chips" data-script hidden><input class="search" type="search" '
        f'aria-label="Search structures" placeholder="Search structures">{chips}<output></output></div>'
        f'<div class="card scroll"><table class="sortable structures"><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def by_structure(run: RunData, key: str) -> dict[str, list[float | None]]:
    """A value for each validation by structure, in the label map's order; None where it had none."""
    found = [row.get(key) for row in run.of("validation")]
    rows: list[dict[str, object]] = [one if isinstance(one, dict) else {} for one in found]
    seen = dict.fromkeys(str(name) for row in rows for name in row)
    names = [*(name for name in run.structures if name in seen), *(name for name in seen if name not in run.structures)]
    return {name: [number_of(row.get(name)) for row in rows] for name in names}


def _last(values: Sequence[float | None]) -> float | None:
    """What the last validation gave; None where it gave none."""
    return values[-1] if values else None


def _row(
    name: str,
    values: Sequence[float | None],
    f1: Sequence[float | None] | None,
    epochs: Sequence[float | None],
    with_f1: bool,
) -> str:
    known = [(value, -index) for index, value in enumerate(values) if value is not None]
    best, back = max(known) if known else (None, 0)
    epoch = epochs[-back] if known else None
    last = _last(values)
    kinds = ["none"] if last is None else ["poor"] * (last < _POOR) + ["zero"] * (last == 0)
    extra = _cell(_last(f1) if f1 else None, wide=True) if with_f1 else ""
    when = "" if epoch is None else f"{epoch:g}"
    return (
        f'<tr data-kinds="{" ".join(kinds)}"><td>{escape(name).replace("_", "_<wbr>")}</td>{_cell(last)}{extra}'
        f'{_cell(best)}<td class="n wide" data-value="{when}">{when or _NONE}</td>'
        f"<td>{spark(values, f'Dice of {name} over epochs')}</td></tr>"
    )


def _cell(value: float | None, wide: bool = False) -> str:
    sort = "" if value is None else f"{value:.6g}"
    kind = f"n{' wide' if wide else ''}"
    return f'<td class="{kind}" data-value="{sort}">{_NONE if value is None else f"{value:.3f}"}</td>'
