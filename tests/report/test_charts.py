import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.report.charts import LinearAxis, LogAxis, axis_for, axis_header, bins, box_row, histogram, spread, ticks_of
from medseg.units import number, short

VALUES = st.lists(st.floats(-4000, 4000), min_size=1, max_size=60)
FEW_VALUES = st.lists(st.floats(-5, 800), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1\u2009234\u2009567"),
        (-1024.0, "\u22121\u2009024"),
        (0.00123, "0.00123"),
        (2.5, "2.5"),
        (100.4, "100"),
    ],
)
def test_numbers_are_written_for_people(value, text):
    assert number(value) == text


@given(VALUES)
def test_every_case_is_in_one_bar(values):
    counts, edges = bins(values)
    assert sum(counts) == len(values)
    assert len(edges) == len(counts) + 1
    assert (edges[0], edges[-1]) == (min(values), max(values))


@given(VALUES)
def test_a_histogram_is_well_formed_and_its_bars_stay_inside(values):
    root = ET.fromstring(histogram(values, "HU", "Intensity"))
    bars = root.findall("rect")
    assert 1 <= len(bars) <= 24
    for bar in bars:
        left, width = (float(bar.get(key).rstrip("%")) for key in ("x", "width"))
        assert left >= 0
        assert left + width <= 100.01
    counted = sum(int(re.search(r": (\d+) case", bar.find("title").text)[1]) for bar in bars)
    assert counted == len(values)


def test_a_histogram_has_a_label_for_screen_readers():
    svg = ET.fromstring(histogram([1.0, 2.0, 3.0, 9.0], "mm", 'Spacing "x" <y>'))
    assert svg.get("aria-label") == 'Spacing "x" <y>: 4 cases, 1 to 9 mm, median 2.5'


def test_equal_values_and_no_values_have_a_histogram():
    assert "1.5 in every case" in histogram([1.5, 1.5], "mm", "Spacing")
    assert "No values" in histogram([], "mm", "Spacing")


@given(st.lists(st.floats(1e-4, 1e5), min_size=1, max_size=60))
def test_a_box_row_lies_on_its_logarithmic_axis(values):
    axis = LogAxis(values)
    assert axis.ticks[0] <= min(values) * (1 + 1e-9)
    assert axis.ticks[-1] >= max(values) * (1 - 1e-9)
    strip = ET.fromstring(box_row(axis, values, "liver"))
    dots = [float(dot.get("cx").rstrip("%")) for dot in strip.findall("circle")]
    assert len(dots) == (len(values) if len(values) <= 24 else 2)
    assert all(-0.01 <= dot <= 100.01 for dot in dots)


def test_powers_of_ten_are_evenly_apart():
    axis = LogAxis([0.1, 1000.0])
    assert np.allclose(np.diff([axis.at(tick) for tick in axis.ticks]), 25)
    assert ">1\u2009000</text>" in axis_header(axis)
    assert axis.at(0.0) == 0.0


@given(FEW_VALUES)
def test_every_value_lies_on_the_linear_axis(values):
    axis = LinearAxis(values)
    assert axis.ticks[0] <= min(values) + 1e-6
    assert axis.ticks[-1] >= max(values) - 1e-6
    assert 2 <= len(axis.ticks) <= 7
    assert all(0 <= axis.at(value) <= 100 for value in values)


def test_shares_end_at_one_and_grow_to_the_right():
    axis = LinearAxis([0.2, 0.4], share=True)
    assert (axis.at(0.0), axis.at(0.5), axis.at(1.0)) == (0.0, 50.0, 100.0)


@given(FEW_VALUES)
def test_a_box_row_is_well_formed_and_has_a_label(values):
    svg = ET.fromstring(box_row(LinearAxis(values), values, "a <b>", " mm"))
    assert f"a <b>: {len(values)} case" in svg.attrib["aria-label"]
    dots = svg.findall("circle")
    assert len(dots) == (len(values) if len(values) <= 24 else 2)
    assert len(svg.findall("rect")) == (len(values) > 2)
    ET.fromstring(axis_header(LinearAxis(values)))


def test_the_box_holds_the_central_half():
    axis = LinearAxis([0.0, 1.0], share=True)
    box = ET.fromstring(box_row(axis, [0.0, 0.25, 0.5, 0.75, 1.0], "x")).find("rect")
    assert box is not None
    assert float(box.attrib["x"].rstrip("%")) == pytest.approx(25)
    assert float(box.attrib["width"].rstrip("%")) == pytest.approx(50)


def test_a_spread_has_bars_as_wide_as_bins_and_as_high_as_counts():
    html = spread([5, 10], [-1.0, 0.0, 3.0], "x")
    svg = ET.fromstring(html.split("<small")[0])
    numbers = [float(number) for number in re.findall(r"[\d.]+", svg.find("path").get("d"))]
    assert numbers == [0, 30, 15, 250, 30, 250, 30, 0, 1000, 30]
    assert "<span>\u22121</span><span>3</span>" in html


@pytest.mark.parametrize(("counts", "edges"), [(None, None), ([0], [0, 1]), ([1, 2], [0, 1]), ("1", [0, 1])])
def test_counts_and_edges_of_no_histogram_are_not_drawn(counts, edges):
    assert spread(counts, edges, "x") == ""


@pytest.mark.parametrize("span", [(0, 1), (0, 7), (0, 1000), (0, 0.02), (0, 37.5), (3, 90)])
def test_ticks_are_few_and_inside(span):
    ticks = ticks_of(span)
    assert 2 <= len(ticks) <= 6
    assert span[0] <= ticks[0] <= ticks[-1] <= span[1] + 1e-9


def test_an_axis_is_logarithmic_only_if_few_values_tower_above_the_others():
    assert isinstance(axis_for([1.0, 1.1, 0.9, 500.0]), LogAxis)
    assert isinstance(axis_for([1.0, 1.1, 0.9, 5.0]), LinearAxis)
    assert axis_for([0.2, 0.9], maximum=1.0).ticks[-1] == 1.0
    assert axis_for([0.01, 0.02], maximum=1.0).ticks[-1] < 0.1
    assert axis_for([0.0, 0.0]).ticks[-1] == 1.0


@pytest.mark.parametrize(("value", "text"), [(0.00025, "2.5e-4"), (1e-8, "1e-8"), (0.5, "0.5"), (0, "0")])
def test_small_numbers_stay_short(value, text):
    assert short(value) == text
