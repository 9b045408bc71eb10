import html
import json
import math
import re
import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from medseg.report.curves import Chart, Line, Mark, draw, spark, thinned
from medseg.report.run_sections import curves, first_time, machine, machine_charts, training_charts
from medseg.runs import Run

YS = st.lists(st.none() | st.floats(-100, 100), min_size=1, max_size=400)


def parsed(text):
    return ET.fromstring(text.replace("<wbr>", ""))


@given(YS, st.integers(1, 20))
def test_thinning_keeps_minimum_maximum_and_both_ends(ys, buckets):
    points = [(float(index), y) for index, y in enumerate(ys)]
    few = thinned(points, buckets)
    values = [y for _, y in few if y is not None]
    assert len(few) <= max(4 * buckets, 4)
    assert set(few) <= set(points)
    assert [x for x, _ in few] == sorted(x for x, _ in few)
    expected = [y for y in ys if y is not None]
    if expected:
        assert (min(values), max(values), values[0], values[-1]) == (
            min(expected),
            max(expected),
            expected[0],
            expected[-1],
        )


def test_a_stretch_without_values_stays_a_gap():
    points = [(float(x), None if 400 <= x < 600 else 1.0) for x in range(1000)]
    assert None in [y for _, y in thinned(points, 10)]


@given(YS)
def test_a_chart_is_well_formed_and_holds_the_values(ys):
    points = [(float(index), y) for index, y in enumerate(ys)]
    marks = [Mark(1.0, "warning", 'odd <b> "title"'), Mark(2.0, "resume", "resumed")]
    text = draw(Chart("Loss", [Line("batch", points, faint=True), Line("none", [])], marks=marks), (0.0, 400.0))
    if all(y is None for y in ys):
        assert text == ""
        return
    figure = parsed(text)
    ((xs, values),) = json.loads(figure.get("data-lines"))
    assert values == [None if y is None else float(f"{y:.6g}") for y in ys]
    assert xs == [x for x, _ in points]
    assert json.loads(figure.get("data-marks")) == [[1.0, 'odd <b> "title"'], [2.0, "resumed"]]
    path = next(element.get("d") for element in figure.iter("path"))
    numbers = [float(number) for number in re.findall(r"[ML]([\d.]+) ", path)]
    assert len(numbers) == sum(y is not None for y in ys)
    assert all(0 <= number <= 1000 for number in numbers)


def test_a_gap_lifts_the_pen_and_is_marked_and_counted():
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, None), (3.0, 1.0)]
    figure = parsed(draw(Chart("Loss", [Line("batch", points)], gaps="values were lost"), (0.0, 3.0)))
    path = next(element.get("d") for element in figure.iter("path"))
    assert path.count("M") == 2
    assert path.endswith("h.01")
    lost = [element for element in figure.iter("line") if element.get("class") == "lost"]
    assert [element.get("x1") for element in lost] == ["66.67%"]
    assert "1 values were lost" in "".join(figure.itertext())


def test_the_best_epoch_lies_on_the_curve():
    chart = Chart("Dice", [Line("Dice", [(1.0, 0.2), (2.0, 0.8)])], maximum=1.0, marks=[Mark(2.0, "best", "best")])
    top = next(element for element in parsed(draw(chart, (0.0, 4.0))).iter("circle") if element.get("class") == "top")
    assert top.get("cx") == "50.00%"
    assert math.isclose(float(top.get("cy")), 168 - 160 * 0.8, abs_tol=0.1)


def test_names_are_escaped():
    text = draw(Chart("<script>", [Line('"><img>', [(0.0, 1.0)])], hint="<i>"), (0.0, 1.0))
    assert "<script>" not in text
    assert "<img>" not in text
    assert '"><img>' in html.unescape(text)


def test_a_spark_of_many_values_is_small_and_one_without_values_is_empty():
    assert spark([None, None], "x") == ""
    assert len(spark([0.5 + 0.4 * math.sin(index) for index in range(1000)], "x")) < 1500
    assert "h.01" in spark([0.5], "x")


def charts(run):
    return {chart.title: {line.name: list(line.points) for line in chart.lines} for chart in training_charts(run)}


def test_every_series_is_drawn_with_its_own_values(make_run):
    run = Run(make_run(epochs=3, batches=4))
    drawn = charts(run)
    batches, epochs, validation = run.rows_of("batch"), run.rows_of("epoch"), run.rows_of("validation")
    assert drawn["Training loss"]["batch"] == [(row["iteration"] / 4, row["loss"]) for row in batches]
    assert drawn["Training loss"]["epoch"] == [(float(row["epoch"]), row["loss"]) for row in epochs]
    assert drawn["Mean Dice"]["Dice"] == [(float(row["epoch"]), row["mean_dice"]) for row in validation]
    assert drawn["Mean Dice"]["F1"] == [(float(row["epoch"]), row["mean_f1"]) for row in validation]
    assert drawn["Parts of the loss"]["Dice, batch"] == [(row["iteration"] / 4, row["dice_loss"]) for row in batches]
    assert drawn["Parts of the loss"]["cross-entropy, epoch"][-1] == (3.0, epochs[-1]["ce_loss"])
    for title, key in (
        ("Gradient norm", "grad_norm"), ("Samples per second", "samples_per_second"), ("Waiting for data", "data_wait")
    ):  # fmt: skip
        assert drawn[title]["batch"] == [(row["iteration"] / 4, row[key]) for row in batches]
    assert drawn["Learning rate"]["rate"] == [(row["iteration"] / 4, row["lr"]) for row in batches]
    assert drawn["Time of an epoch"]["validation"][0] == (1.0, validation[0]["seconds"])


def test_the_machine_is_drawn_over_hours_with_a_gap_at_an_interruption(make_run):
    run = Run(make_run(epochs=4, batches=4, resumed=3))
    drawn = {chart.title: {line.name: list(line.points) for line in chart.lines} for chart in machine_charts(run)}
    start, rows = first_time(run), run.rows_of("system")
    pause = (run.rows_of("begin")[1]["time"] - start) / 3600
    measured = [((row["time"] - start) / 3600, row["gpu"][1]["load"]) for row in rows]
    assert drawn["Load"]["GPU 1"] == sorted([*measured, (pause, None)], key=lambda point: point[0])
    assert [y for _, y in drawn["GPU memory in use"]["GPU 0"]] == [18.5, 18.5, None, 18.5, 18.5]
    assert drawn["Free on the disk"]["free"][-1][1] == rows[-1]["disk_free"] / 1e9


def test_resumes_warnings_and_the_best_epoch_are_marked(make_run):
    run = Run(make_run(epochs=4, batches=4, resumed=3))
    loss = next(chart for chart in training_charts(run) if chart.title == "Training loss")
    assert [(mark.kind, mark.x) for mark in loss.marks] == [
        ("resume", 2.0), ("warning", 4.0), ("error", 0.25), ("best", 3.0),
    ]  # fmt: skip
    section = curves(run)
    assert [kind for kind, _ in section["legend"]] == ["resume", "warning", "error", "best"]
    assert all(f'class="mark {kind}"' in section["charts"][0] for kind in ("resume", "warning", "error", "best"))


def test_lost_losses_are_a_gap_and_counted(make_run):
    loss = curves(Run(make_run(epochs=3, batches=4, lost=(5, 6))))["charts"][0]
    assert "2 values of the loss were NaN or infinite" in loss


def test_charts_without_values_are_named(fake_run):
    rows = {"epoch": [(0, {"epoch": 1, "loss": 1.0})]}
    section = curves(fake_run(rows=rows))
    assert section["missing"][:2] == ["mean dice", "parts of the loss"]
    assert machine(fake_run(rows=rows)) is None


def test_a_run_without_rows_has_no_charts(fake_run):
    assert curves(fake_run()) is None


def test_rows_of_another_form_are_passed_over(fake_run):
    rows = {
        "batch": [(0, {"iteration": "7", "loss": [1]}), (1, {"loss": 2.0}), (2, {"epoch": 1, "loss": 3.0})],
        "system": [(3, {"time": 5.0, "gpu": "none"}), (4, {"time": 6.0, "gpu": [None], "cpu": 0.5})],
    }
    assert charts(fake_run(rows=rows))["Training loss"]["batch"] == [(1.0, 3.0)]
    assert "CPU" in machine(fake_run(rows=rows))["charts"][0]
