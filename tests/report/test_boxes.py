import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.report.boxes import LinearAxis

VALUES = st.lists(st.floats(-5, 800), min_size=1, max_size=40)


@given(VALUES)
def test_every_value_lies_on_the_axis(values):
    axis = LinearAxis(values)
    assert axis.ticks[0] <= min(values) + 1e-6
    assert axis.ticks[-1] >= max(values) - 1e-6
    assert 2 <= len(axis.ticks) <= 7
    assert all(0 <= axis.at(value) <= 100 for value in values)


def test_shares_end_at_one_and_grow_to_the_right():
    axis = LinearAxis([0.2, 0.4], share=True)
    assert (axis.at(0.0), axis.at(0.5), axis.at(1.0)) == (0.0, 50.0, 100.0)


@given(VALUES)
def test_a_box_is_well_formed_and_says_its_numbers(values):
    picture = ET.fromstring(LinearAxis(values).box(values, "a <b>", " mm"))
    assert f"a <b>: {len(values)} case" in picture.attrib["aria-label"]
    dots = picture.findall("circle")
    assert len(dots) == (len(values) if len(values) <= 24 else 2)
    assert len(picture.findall("rect")) == (len(values) > 2)
    ET.fromstring(LinearAxis(values).header())


def test_the_box_holds_the_middle_half():
    axis = LinearAxis([0.0, 1.0], share=True)
    box = ET.fromstring(axis.box([0.0, 0.25, 0.5, 0.75, 1.0], "x")).find("rect")
    assert box is not None
    assert float(box.attrib["x"].rstrip("%")) == pytest.approx(25)
    assert float(box.attrib["width"].rstrip("%")) == pytest.approx(50)
