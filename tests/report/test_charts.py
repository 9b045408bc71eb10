import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.report.charts import LogAxis, bins, histogram, number

VALUES = st.lists(st.floats(-4000, 4000), min_size=1, max_size=60)


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
def test_a_histogram_is_sound_svg_whose_bars_stay_inside(values):
    root = ET.fromstring(histogram(values, "HU", "Intensity"))
    bars = root.findall("rect")
    assert 1 <= len(bars) <= 24
    for bar in bars:
        left, width = (float(bar.get(key).rstrip("%")) for key in ("x", "width"))
        assert left >= 0
        assert left + width <= 100.01
    said = sum(int(re.search(r": (\d+) case", bar.find("title").text)[1]) for bar in bars)
    assert said == len(values)


def test_the_chart_is_told_to_those_who_do_not_see_it():
    svg = ET.fromstring(histogram([1.0, 2.0, 3.0, 9.0], "mm", 'Spacing "x" <y>'))
    assert svg.get("aria-label") == 'Spacing "x" <y>: 4 cases, 1 to 9 mm, median 2.5'


def test_values_that_are_all_the_same_and_none_at_all_have_a_chart():
    assert "1.5 in every case" in histogram([1.5, 1.5], "mm", "Spacing")
    assert "No values" in histogram([], "mm", "Spacing")


@given(st.lists(st.floats(1e-4, 1e5), min_size=1, max_size=60))
def test_a_strip_lies_on_its_axis(values):
    axis = LogAxis(values)
    assert axis.ticks[0] <= min(values) * (1 + 1e-9)
    assert axis.ticks[-1] >= max(values) * (1 - 1e-9)
    strip = ET.fromstring(axis.strip(values, "liver"))
    dots = [float(dot.get("cx").rstrip("%")) for dot in strip.findall("circle")]
    assert len(dots) == (len(values) if len(values) <= 24 else 2)
    assert all(-0.01 <= dot <= 100.01 for dot in dots)


def test_powers_of_ten_are_evenly_apart():
    axis = LogAxis([0.1, 1000.0])
    assert np.allclose(np.diff([axis.at(tick) for tick in axis.ticks]), 25)
    assert ">1\u2009000</text>" in axis.header()
    assert axis.at(0.0) == 0.0
