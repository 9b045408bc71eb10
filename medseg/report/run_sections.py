"""The parts of a run's page: charts over epochs and hours, scores by structure, histograms of weights, previews."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from medseg.report.charts import histogram, spread
from medseg.report.curves import Chart, Line, Mark, Point, draw, spark
from medseg.report.page import data_url
from medseg.runs import Run
from medseg.runs.metrics_log import Row, number_of

_GB, _HOUR = 1e9, 3600.0
_POOR_DICE = 0.5
_MAX_CASES, _MAX_EPOCHS, _WIDTH = 3, 9, 1280  # of the previews
_MAX_BYTES = 4_500_000  # of all images together
_QUALITY = 80
_LEGEND = {"resume": "resumed", "warning": "warning", "error": "error", "best": "best epoch"}


def curves(run: Run) -> dict[str, Any] | None:
    """Return everything over epochs: loss, Dice, learning rate, gradients, speed; None without any value."""
    charts = training_charts(run)
    last = max([1.0, *(x for chart in charts for line in chart.lines for x, _ in line.points)])
    return _drawn(charts, (0.0, last))


def machine(run: Run) -> dict[str, Any] | None:
    """Return everything over hours: GPU, CPU, memory and disk; None without any value."""
    charts = machine_charts(run)
    last = max([0.02, *(x for chart in charts for line in chart.lines for x, _ in line.points)])
    return _drawn(charts, (0.0, last))


def _drawn(charts: Sequence[Chart], span: tuple[float, float]) -> dict[str, Any] | None:
    """Return the SVG of the charts, a legend of their marks, and the titles of those without values."""
    drawn = {chart.title: svg for chart in charts if (svg := draw(chart, span))}
    if not drawn:
        return None
    kinds = {mark.kind for chart in charts if chart.title in drawn for mark in chart.marks}
    return {
        "charts": list(drawn.values()),
        "legend": [(kind, text) for kind, text in _LEGEND.items() if kind in kinds],
        "missing": [chart.title.lower() for chart in charts if chart.title not in drawn],
    }


def training_charts(run: Run) -> list[Chart]:
    """Return the charts over epochs, with and without values."""
    marks = [mark for mark in _marks(run, lambda row: _epochs(row, run.epoch_length)) if mark.x >= 0]
    best = [Mark(float(run.best.epoch), "best", f"best mean Dice {run.best.dice:.4f}")] if run.best else []

    def batches_and_epochs(key: str, name: str = "", style: int = 0) -> list[Line]:
        return [
            Line(f"{name} batch".strip(), _over_epochs(run, "batch", key), style, faint=True),
            Line(f"{name} epoch".strip(), _over_epochs(run, "epoch", key), style),
        ]

    def validations(key: str, name: str, style: int = 0) -> Line:
        return Line(name, _over_epochs(run, "validation", key), style)

    loss_parts = [
        *batches_and_epochs("dice_loss", "Dice,"),
        *batches_and_epochs("ce_loss", "cross-entropy,", 1),
    ]
    seconds = [
        Line("training", _over_epochs(run, "epoch", "train_seconds")),
        validations("seconds", "validation", 1),
    ]
    return [
        Chart(
            "Training loss", batches_and_epochs("loss"), marks=[*marks, *best],
            gaps="values of the loss were NaN or infinite (red, at the bottom)",
            hint="Falls fast, then slowly; it should never jump up for good.",
        ),
        Chart(
            "Mean Dice", [validations("mean_dice", "Dice"), validations("mean_f1", "F1", 1)], maximum=1.0,
            marks=[*marks, *best], hint="On the validation cases. Flat for many epochs: it will hardly learn more.",
        ),
        Chart("Parts of the loss", loss_parts, marks=marks),
        Chart("Learning rate", [Line("rate", _over_epochs(run, "batch", "lr") or _over_epochs(run, "epoch", "lr"))],
              marks=marks),
        Chart("Gradient norm", batches_and_epochs("grad_norm"), marks=marks,
              hint="Peaks far above the others come before a loss that jumps."),
        Chart("Samples per second", batches_and_epochs("samples_per_second"), marks=marks),
        Chart("Waiting for data", batches_and_epochs("data_wait"), maximum=1.0, marks=marks,
              hint="Share of the time. Above a tenth, reading the data slows the training."),
        Chart("Time of an epoch", seconds, unit="s", marks=marks),
    ]  # fmt: skip


def machine_charts(run: Run) -> list[Chart]:
    """Return the charts over hours, with and without values."""
    rows = run.rows_of("system")
    start = first_time(run)
    marks = [mark for mark in _marks(run, lambda row: _hours(row, start)) if mark.x >= 0]
    resumed = [x for row in run.rows_of("begin") if row.get("resumed") and (x := _hours(row, start)) is not None]

    def line(name: str, key: str | tuple[int, str], style: int = 0, unit: float = 1.0) -> Line:
        points: list[Point] = []
        for row in rows:
            x, y = _hours(row, start), _system_value(row, key)
            if x is not None:
                points.append((x, None if y is None else y / unit))
        return Line(name, _with_gaps(points, resumed), style)

    count = max([0, *(len(row["gpu"]) for row in rows if isinstance(row.get("gpu"), list))])
    gpu_names = [f"GPU {index}" if count > 1 else "GPU" for index in range(count)]
    loads = [line(name, (index, "load"), 1 + index % 5) for index, name in enumerate(gpu_names)]
    used = [line(name, (index, "memory_used"), 1 + index % 5, _GB) for index, name in enumerate(gpu_names)]
    total = max([0.0, *(_system_value(row, (i, "memory_total")) or 0.0 for row in rows for i in range(count))]) / _GB
    return [
        Chart("Load", [line("CPU", "cpu"), *loads], "hours", maximum=1.0, marks=marks,
              hint="A GPU below 0.8 while data is waited for: more workers, or the slice store."),
        Chart("GPU memory in use", used, "hours", "GB", marks=marks, hint=f"Of {total:.4g} GB." if total else ""),
        Chart("RAM", [line("in use", "ram_used", 0, _GB), line("by the training", "ram_process", 1, _GB),
                      line("free", "ram_free", 2, _GB)], "hours", "GB", marks=marks),
        Chart("Free on the disk", [line("free", "disk_free", 0, _GB)], "hours", "GB", marks=marks),
        Chart("Free in /dev/shm", [line("free", "shm_free", 0, _GB)], "hours", "GB", marks=marks,
              hint="Where the data loading workers pass on their batches."),
    ]  # fmt: skip


def first_time(run: Run) -> float | None:
    """Return when the first row was written, in seconds since 1970."""
    times = [time for rows in run.rows.values() for _, row in rows if (time := number_of(row.get("time"))) is not None]
    return min(times) if times else None


def _over_epochs(run: Run, kind: str, key: str) -> list[Point]:
    """Return a curve over the finished epochs and their fractions; empty without any value."""
    values = [number_of(row.get(key)) for row in run.rows_of(kind)]
    if all(value is None for value in values):
        return []
    length = run.epoch_length if kind == "batch" else None
    xs = [_epochs(row, length) for row in run.rows_of(kind)]
    return sorted(((x, y) for x, y in zip(xs, values, strict=True) if x is not None), key=lambda point: point[0])


def _epochs(row: Row, length: float | None) -> float | None:
    iteration = number_of(row.get("iteration")) if length else None
    return iteration / length if iteration is not None and length else number_of(row.get("epoch"))


def _hours(row: Row, start: float | None) -> float | None:
    time = number_of(row.get("time"))
    return None if time is None or start is None else (time - start) / _HOUR


def _system_value(row: Row, key: str | tuple[int, str]) -> float | None:
    """Return a value of the machine, or, for an index and a key, of one of its GPUs."""
    if isinstance(key, str):
        return number_of(row.get(key))
    index, name = key
    gpus = row.get("gpu")
    if not isinstance(gpus, list) or index >= len(gpus) or not isinstance(gpus[index], dict):
        return None
    return number_of(gpus[index].get(name))


def _with_gaps(points: list[Point], interruptions: Sequence[float]) -> list[Point]:
    """Return the points with a gap wherever the run was interrupted."""
    return sorted([*points, *((x, None) for x in interruptions)], key=lambda point: (point[0], point[1] is not None))


def _marks(run: Run, location: Callable[[Row], float | None]) -> list[Mark]:
    """Return where the run was resumed, and what it warned of."""
    marks = []
    for row in run.rows_of("begin"):
        x = location(row)
        if row.get("resumed") and x is not None:
            marks.append(Mark(x, "resume", "resumed"))
    for row in run.rows_of("warning"):
        x = location(row)
        if x is not None:
            marks.append(Mark(x, "error" if row.get("level") == "error" else "warning", str(row.get("title", ""))))
    return marks


def spreads(run: Run) -> dict[str, Any] | None:
    """Return the last histograms of weights and gradients, by part of the network; None without any.

    They are recorded only on request.
    """
    rows = run.rows_of("histogram")
    if not rows:
        return None
    row = rows[-1]
    parameters, gradients = _mapping(row.get("parameters")), _mapping(row.get("gradients"))
    parts = []
    for name in dict.fromkeys([*parameters, *gradients]):
        svgs = []
        for values, kind in ((parameters, "parameters"), (gradients, "gradients")):
            bins = _mapping(values.get(name))
            svgs.append(spread(bins.get("counts"), bins.get("edges"), f"{kind} of {name}"))
        parts.append((name, *svgs))
    return {"epoch": number_of(row.get("epoch")), "parts": parts}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def score_table(run: Run) -> dict[str, Any] | None:
    """Return the table of structures, the worst first: last and best Dice of each and its curve; None without any."""
    series = by_structure(run, "dice")
    if not series:
        return None
    f1 = by_structure(run, "f1")
    epochs = [number_of(row.get("epoch")) for row in run.rows_of("validation")]
    order = sorted(series, key=lambda name: (series[name][-1] is None, series[name][-1] or 0.0, name))
    last = [value for name in order if (value := series[name][-1]) is not None]
    counts = (
        ("all", "All", len(order)),
        ("poor", "Under 0.5", sum(value < _POOR_DICE for value in last)),
        ("zero", "0", sum(value == 0 for value in last)),
        ("none", "No value", len(order) - len(last)),
    )
    chart = histogram(last, "", "Dice of the structures", ("structure", "structures"))
    return {
        "rows": [_score_row(name, series[name], f1.get(name), epochs) for name in order],
        "with_f1": bool(f1),
        "chips": [chip for chip in counts if chip[2]],
        "histogram": chart if len(last) > 4 else "",
    }


def by_structure(run: Run, key: str) -> dict[str, list[float | None]]:
    """Return a value for each validation by structure, in the label map's order; None where it had none."""
    rows = [scores if isinstance(scores := row.get(key), Mapping) else {} for row in run.rows_of("validation")]
    present = dict.fromkeys(str(name) for row in rows for name in row)
    names = [*(name for name in run.structures if name in present)]
    names += [name for name in present if name not in run.structures]
    return {name: [number_of(row.get(name)) for row in rows] for name in names}


def _score_row(
    name: str, values: Sequence[float | None], f1: Sequence[float | None] | None, epochs: Sequence[float | None]
) -> dict[str, Any]:
    scored = [(value, -index) for index, value in enumerate(values) if value is not None]
    best, back = max(scored) if scored else (None, 0)
    last = values[-1]
    kinds = ["none"] if last is None else ["poor"] * (last < _POOR_DICE) + ["zero"] * (last == 0)
    return {
        "name": name,
        "kinds": " ".join(kinds),
        "last": last,
        "f1": f1[-1] if f1 else None,
        "best": best,
        "epoch": epochs[-back] if scored else None,
        "svg": spark(values, f"Dice of {name} over epochs"),
    }


def previews(run: Run) -> dict[str, Any] | None:
    """Return the images of each case by epoch, and how many were left out; None without any.

    The last, the best and the first epoch come before the others, if not all fit.
    """
    best = run.best.epoch if run.best else None
    cases = list(run.previews.items())[:_MAX_CASES]
    figures = []
    for case, files in cases:
        frames: dict[int, dict[str, Any]] = {}
        bytes_left = _MAX_BYTES / len(cases)
        epochs = select_epochs(sorted(files), best, _MAX_EPOCHS)
        important = [epochs[-1], *(epoch for epoch in epochs if epoch == best), epochs[0]]
        for epoch in dict.fromkeys([*important, *epochs]):
            frame = _frame(files[epoch])
            bytes_left -= len(frame.get("url", ""))
            if bytes_left < 0 and frames:
                break
            frames[epoch] = {**frame, "epoch": epoch, "title": _title(epoch, max(files), best)}
        figures.append({"case": case, "frames": [frames[epoch] for epoch in sorted(frames)]})
    if not figures:
        return None
    shown = sum(len(figure["frames"]) for figure in figures)
    return {"figures": figures, "shown": shown, "total": sum(len(files) for files in run.previews.values())}


def select_epochs(epochs: Sequence[int], best: int | None, count: int) -> list[int]:
    """Return the first, the best and the last epoch, and others evenly between them, in order.

    >>> select_epochs(list(range(0, 101)), 97, 5)
    [0, 33, 66, 97, 100]
    """
    if len(epochs) <= count:
        return list(epochs)
    selected = {epochs[0], epochs[-1], *(epoch for epoch in epochs if epoch == best)}
    slots = count - len(selected) + 1
    selected |= {epochs[(len(epochs) - 1) * index // slots] for index in range(1, slots)}
    return sorted(selected)


def _title(epoch: int, last: int, best: int | None) -> str:
    if epoch == 0:
        return "before training"
    notes = ["best"] * (epoch == best) + ["last"] * (epoch == last)
    return f"epoch {epoch} ({', '.join(notes)})" if notes else f"epoch {epoch}"


def _frame(path: Path) -> dict[str, Any]:
    """Return an image for the page, smaller if it is wide; its error if it cannot be read."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
            image.thumbnail((_WIDTH, _WIDTH), Image.Resampling.BOX, reducing_gap=None)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return {"error": str(error)}
    return {"url": data_url(image, _QUALITY), "width": image.width, "height": image.height}
