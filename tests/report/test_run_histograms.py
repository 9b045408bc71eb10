import re
import xml.etree.ElementTree as ET

import pytest

from medseg.report.run_data import RunData, read_run
from medseg.report.run_histograms import bars, histograms


def test_bars_are_as_wide_as_their_bins_and_as_high_as_their_counts():
    html = bars({"edges": [-1.0, 0.0, 3.0], "counts": [5, 10]}, "x")
    svg = ET.fromstring(html.split("<small")[0])
    numbers = [float(number) for number in re.findall(r"[\d.]+", svg.find("path").get("d"))]
    assert numbers == [0, 30, 15, 250, 30, 250, 30, 0, 1000, 30]
    assert "<span>\u22121</span><span>3</span>" in html


@pytest.mark.parametrize("one", [None, {}, {"edges": [0, 1], "counts": [0]}, {"edges": [0, 1], "counts": [1, 2]}, [1]])
def test_what_is_no_histogram_is_not_drawn(one):
    assert bars(one, "x") == ""


def test_each_part_of_the_network_has_a_line_with_both(made):
    html = histograms(read_run(made()))
    assert "conv.<wbr>weight" in html
    assert html.count("<svg") == 2
    assert "in epoch 3" in html


def test_the_last_look_is_shown_and_names_are_escaped():
    rows = [(index, {"epoch": index, "parameters": {"<b>": {"edges": [0, index], "counts": [1]}}}) for index in (1, 2)]
    html = histograms(RunData("run", rows={"histogram": rows}))
    assert "<span>0</span><span>2</span>" in html
    assert "<b>" not in html
    assert histograms(RunData("run")) == ""
