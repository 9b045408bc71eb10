"""How the weights of a network and their gradients were spread when they were looked at last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from medseg.report.curves import short
from medseg.report.run_data import RunData, number_of

_WIDTH, _HEIGHT = 1000, 30


def histograms(run: RunData) -> str:
    """A line for each part of the network; empty where none were recorded, for they are off unless asked for."""
    rows = run.of("histogram")
    if not rows:
        return ""
    last = rows[-1]
    parameters, gradients = _of(last.get("parameters")), _of(last.get("gradients"))
    names = list(dict.fromkeys([*parameters, *gradients]))
    lines = "".join(
        f"<tr><td><code>{escape(str(name)).replace('.', '.<wbr>')}</code></td>"
        f"<td>{bars(parameters.get(name), f'parameters of {name}')}</td>"
        f"<td>{bars(gradients.get(name), f'gradients of {name}')}</td></tr>"
        for name in names
    )
    epoch = number_of(last.get("epoch"))
    when = "" if epoch is None else f", in epoch {epoch:g}"
    return (
        f'<p class="lead">Counts of values at the last look{when}, from the least to the most. All looks are in '
        "histograms.csv (--csv).</p>"
        '<div class="card scroll"><table class="spread"><thead><tr><th>Part</th><th>Parameters</th>'
        f"<th>Gradients</th></tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _of(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def bars(one: object, what: str) -> str:
    """The bins of a histogram side by side, its ends below; empty where it is none.

    Args:
        one: `edges` and `counts`, one edge more than counts.
        what: what is counted, for those who have it read to them.
    """
    if not isinstance(one, Mapping):
        return ""
    edges, counts = _numbers(one.get("edges")), _numbers(one.get("counts"))
    if not counts or len(edges) != len(counts) + 1 or max(counts) <= 0:
        return ""
    low, span, most = edges[0], (edges[-1] - edges[0]) or 1.0, max(counts)
    path = "".join(
        f"M{_WIDTH * (left - low) / span:.0f} {_HEIGHT}V{_HEIGHT - _HEIGHT * count / most:.1f}"
        f"H{_WIDTH * (right - low) / span:.0f}V{_HEIGHT}"
        for left, right, count in zip(edges, edges[1:], counts, strict=False)
        if count > 0
    )
    label = escape(f"{what}: {short(low)} to {short(edges[-1])}", quote=True)
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" '
        f'width="100%" height="{_HEIGHT}"><path class="bar" d="{path}"/></svg>'
        f'<small class="ends"><span>{short(low)}</span><span>{short(edges[-1])}</span></small>'
    )


def _numbers(values: object) -> Sequence[float]:
    found = [number_of(value) for value in values] if isinstance(values, list) else []
    return [value for value in found if value is not None]
