"""Which curves the report of a run shows, made of its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from medseg.report.curves import Chart, Line, Mark, Point, draw
from medseg.report.run_data import Row, RunData, number_of

GB, HOUR = 1e9, 3600.0
_LEGEND = (("resume", "resumed"), ("warning", "warning"), ("error", "error"), ("best", "best epoch"))


def curves(run: RunData) -> str:
    """Everything over epochs: loss, Dice, learning rate, gradients, speed; empty where nothing was recorded."""
    charts = training_charts(run)
    span = (0.0, max([1.0, *(x for chart in charts for line in chart.lines for x, _ in line.points)]))
    return _section(charts, span, "Over epochs. A thin line is what single batches gave, a thick one an epoch's mean.")


def machine(run: RunData) -> str:
    """Everything over hours: GPU, CPU, memory and disk; empty where nothing was recorded."""
    charts = machine_charts(run)
    last = max([0.02, *(x for chart in charts for line in chart.lines for x, _ in line.points)])
    return _section(charts, (0.0, last), "Over hours since the start, pauses included.")


def _section(charts: Sequence[Chart], span: tuple[float, float], lead: str) -> str:
    drawn = [(chart, html) for chart in charts if (html := draw(chart, span))]
    if not drawn:
        return ""
    missing = [chart.title.lower() for chart in charts if not any(chart is one for one, _ in drawn)]
    kinds = {mark.kind for chart, _ in drawn for mark in chart.marks}
    legend = "".join(f'<span><i class="mark {kind}"></i>{text}</span>' for kind, text in _LEGEND if kind in kinds)
    return (
        f'<p class="lead">{lead} <span data-script hidden>Point at a chart, or touch it, for its values.</span></p>'
        + (f'<p class="legend marks">{legend}</p>' if legend else "")
        + f'<div class="charts">{"".join(html for _, html in drawn)}</div>'
        + (f'<p class="lead small">Not recorded in this run: {escape(", ".join(missing))}.</p>' if missing else "")
    )


def training_charts(run: RunData) -> list[Chart]:
    """The charts over epochs, with and without values."""
    marks = [mark for mark in _marks(run, lambda row: _epochs(row, run.epoch_length)) if mark.x >= 0]
    best = [Mark(float(run.best[1]), "best", f"best mean Dice {run.best[0]:.4f}")] if run.best else []

    def both(key: str, name: str = "", style: int = 0) -> list[Line]:
        return [
            Line(f"{name} batch".strip(), _over_epochs(run, "batch", key), style, faint=True),
            Line(f"{name} epoch".strip(), _over_epochs(run, "epoch", key), style),
        ]

    def validated(key: str, name: str, style: int = 0) -> Line:
        return Line(name, _over_epochs(run, "validation", key), style)

    seconds = [
        Line("training", _over_epochs(run, "epoch", "train_seconds")),
        validated("seconds", "validation", 1),
    ]
    return [
        Chart(
            "Training loss", both("loss"), marks=[*marks, *best],
            gaps="values of the loss were NaN or infinite (red, at the bottom)",
            hint="Falls fast, then slowly; it should never jump up for good.",
        ),
        Chart(
            "Mean Dice", [validated("mean_dice", "Dice"), validated("mean_f1", "F1", 1)], most=1.0,
            marks=[*marks, *best], hint="On the validation cases. Flat for many epochs: it has learned what it will.",
        ),
        Chart("Parts of the loss", [*both("dice_loss", "Dice,"), *both("ce_loss", "cross-entropy,", 1)], marks=marks),
        Chart("Learning rate", [Line("rate", _over_epochs(run, "batch", "lr") or _over_epochs(run, "epoch", "lr"))],
              marks=marks),
        Chart("Gradient norm", both("grad_norm"), marks=marks,
              hint="Peaks far above the rest come before a loss that jumps."),
        Chart("Samples per second", both("samples_per_second"), marks=marks),
        Chart("Waiting for data", both("data_wait"), most=1.0, marks=marks,
              hint="Share of the time. Above a tenth, the data holds up the network."),
        Chart("Time of an epoch", seconds, unit="s", marks=marks),
    ]  # fmt: skip


def machine_charts(run: RunData) -> list[Chart]:
    """The charts over hours, with and without values."""
    rows = run.of("system")
    start = first_time(run)
    marks = [mark for mark in _marks(run, lambda row: _hours(row, start)) if mark.x >= 0]
    resumed = [x for row in run.of("begin") if row.get("resumed") and (x := _hours(row, start)) is not None]

    def line(name: str, of: object, style: int = 0, unit: float = 1.0) -> Line:
        points: list[Point] = []
        for row in rows:
            x, y = _hours(row, start), _system(row, of)
            if x is not None:
                points.append((x, None if y is None else y / unit))
        return Line(name, _broken(points, resumed), style)

    count = max([0, *(len(row["gpu"]) for row in rows if isinstance(row.get("gpu"), list))])
    names = [f"GPU {index}" if count > 1 else "GPU" for index in range(count)]
    loads = [line(name, (index, "load"), 1 + index % 5) for index, name in enumerate(names)]
    used = [line(name, (index, "memory_used"), 1 + index % 5, GB) for index, name in enumerate(names)]
    whole = max([0.0, *(_system(row, (i, "memory_total")) or 0.0 for row in rows for i in range(count))]) / GB
    return [
        Chart("Load", [line("CPU", "cpu"), *loads], "hours", most=1.0, marks=marks,
              hint="A GPU below 0.8 while data is waited for: more workers, or the slice store."),
        Chart("GPU memory in use", used, "hours", "GB", marks=marks, hint=f"Of {whole:.4g} GB." if whole else ""),
        Chart("RAM", [line("in use", "ram_used", 0, GB), line("by the training", "ram_process", 1, GB),
                      line("free", "ram_free", 2, GB)], "hours", "GB", marks=marks),
        Chart("Free on the disk", [line("free", "disk_free", 0, GB)], "hours", "GB", marks=marks),
        Chart("Free in /dev/shm", [line("free", "shm_free", 0, GB)], "hours", "GB", marks=marks,
              hint="What data-loading workers hand over through."),
    ]  # fmt: skip


def first_time(run: RunData) -> float | None:
    """When the first row was written, in seconds since 1970."""
    times = [time for rows in run.rows.values() for _, row in rows if (time := number_of(row.get("time"))) is not None]
    return min(times) if times else None


def _over_epochs(run: RunData, kind: str, key: str) -> list[Point]:
    """A series, x being the epochs that are done, with their fraction; empty where it has no value at all."""
    values = [number_of(row.get(key)) for row in run.of(kind)]
    if all(value is None for value in values):
        return []
    length = run.epoch_length if kind == "batch" else None
    xs = [_epochs(row, length) for row in run.of(kind)]
    return sorted(((x, y) for x, y in zip(xs, values, strict=True) if x is not None), key=lambda one: one[0])


def _epochs(row: Row, length: float | None) -> float | None:
    iteration = number_of(row.get("iteration")) if length else None
    return iteration / length if iteration is not None and length else number_of(row.get("epoch"))


def _hours(row: Row, start: float | None) -> float | None:
    time = number_of(row.get("time"))
    return None if time is None or start is None else (time - start) / HOUR


def _system(row: Row, of: object) -> float | None:
    if not isinstance(of, tuple):
        return number_of(row.get(str(of)))
    index, key = of
    gpus = row.get("gpu")
    if not isinstance(gpus, list) or index >= len(gpus) or not isinstance(gpus[index], dict):
        return None
    return number_of(gpus[index].get(key))


def _broken(points: list[Point], at: Sequence[float]) -> list[Point]:
    """Points with a gap wherever the run stood still."""
    return sorted([*points, *((x, None) for x in at)], key=lambda one: (one[0], one[1] is not None))


def _marks(run: RunData, location: Callable[[Row], float | None]) -> list[Mark]:
    """Where the run was gone on with, and what it warned of."""
    found = []
    for row in run.of("begin"):
        x = location(row)
        if row.get("resumed") and x is not None:
            found.append(Mark(x, "resume", "resumed"))
    for row in run.of("warning"):
        x = location(row)
        if x is not None:
            found.append(Mark(x, "error" if row.get("level") == "error" else "warning", str(row.get("title", ""))))
    return found
