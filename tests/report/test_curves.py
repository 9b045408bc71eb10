import html
import json
import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.report.boxes import LinearAxis
from medseg.report.charts import LogAxis
from medseg.report.curves import Chart, Line, Mark, axis_of, draw, short, spark, thinned, ticks_of

YS = st.lists(st.none() | st.floats(-100, 100), min_size=1, max_size=400)


def parsed(text):
    return ET.fromstring(text.replace("<wbr>", ""))


@given(YS, st.integers(1, 20))
def test_thinning_keeps_the_least_the_most_and_both_ends(ys, buckets):
    points = [(float(index), y) for index, y in enumerate(ys)]
    few = thinned(points, buckets)
    known = [y for _, y in few if y is not None]
    assert len(few) <= max(4 * buckets, 4)
    assert set(few) <= set(points)
    assert [x for x, _ in few] == sorted(x for x, _ in few)
    want = [y for y in ys if y is not None]
    if want:
        assert (min(known), max(known), known[0], known[-1]) == (min(want), max(want), want[0], want[-1])


def test_a_stretch_without_values_stays_a_gap():
    points = [(float(x), None if 400 <= x < 600 else 1.0) for x in range(1000)]
    assert None in [y for _, y in thinned(points, 10)]


@pytest.mark.parametrize("span", [(0, 1), (0, 7), (0, 1000), (0, 0.02), (0, 37.5), (3, 90)])
def test_ticks_are_few_and_inside(span):
    ticks = ticks_of(span)
    assert 2 <= len(ticks) <= 6
    assert span[0] <= ticks[0] <= ticks[-1] <= span[1] + 1e-9


def test_the_axis_is_logarithmic_only_where_few_values_tower_above_the_rest():
    assert isinstance(axis_of([1.0, 1.1, 0.9, 500.0]), LogAxis)
    assert isinstance(axis_of([1.0, 1.1, 0.9, 5.0]), LinearAxis)
    assert axis_of([0.2, 0.9], most=1.0).ticks[-1] == 1.0
    assert axis_of([0.01, 0.02], most=1.0).ticks[-1] < 0.1
    assert axis_of([0.0, 0.0]).ticks[-1] == 1.0


@given(YS)
def test_a_chart_is_sound_and_holds_the_values(ys):
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
    path = next(one.get("d") for one in figure.iter("path"))
    numbers = [float(number) for number in re.findall(r"[ML]([\d.]+) ", path)]
    assert len(numbers) == sum(y is not None for y in ys)
    assert all(0 <= number <= 1000 for number in numbers)


def test_a_gap_lifts_the_pen_and_is_marked_and_counted():
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, None), (3.0, 1.0)]
    figure = parsed(draw(Chart("Loss", [Line("batch", points)], gaps="values were lost"), (0.0, 3.0)))
    path = next(one.get("d") for one in figure.iter("path"))
    assert path.count("M") == 2
    assert path.endswith("h.01")
    lost = [one for one in figure.iter("line") if one.get("class") == "lost"]
    assert [one.get("x1") for one in lost] == ["66.67%"]
    assert "1 values were lost" in "".join(figure.itertext())


def test_the_best_epoch_lies_on_the_curve():
    chart = Chart("Dice", [Line("Dice", [(1.0, 0.2), (2.0, 0.8)])], most=1.0, marks=[Mark(2.0, "best", "best")])
    top = next(one for one in parsed(draw(chart, (0.0, 4.0))).iter("circle") if one.get("class") == "top")
    assert top.get("cx") == "50.00%"
    assert math.isclose(float(top.get("cy")), 168 - 160 * 0.8, abs_tol=0.1)


def test_names_are_escaped():
    text = draw(Chart("<script>", [Line('"><img>', [(0.0, 1.0)])], hint="<i>"), (0.0, 1.0))
    assert "<script>" not in text
    assert "<img>" not in text
    assert '"><img>' in html.unescape(text)


@pytest.mark.parametrize(("value", "text"), [(0.00025, "2.5e-4"), (1e-8, "1e-8"), (0.5, "0.5"), (0, "0")])
def test_small_numbers_stay_short(value, text):
    assert short(value) == text


def test_a_spark_of_many_values_is_small_and_one_without_any_is_none():
    assert spark([None, None], "x") == ""
    assert len(spark([0.5 + 0.4 * math.sin(index) for index in range(1000)], "x")) < 1500
    assert "h.01" in spark([0.5], "x")
