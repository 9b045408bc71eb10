import base64
import io
import re

import pytest
from PIL import Image

from medseg.errors import OutputError
from medseg.report import save_dataset_page
from medseg.report.dataset_page import dataset_page

HOSTILE = '<script>alert("x")</script>\'"&<img src=x onerror=alert(1)>'


def finding(severity, case, location="ct.nii.gz", **more):
    return {
        "severity": severity, "code": "mask-shape", "case": case, "location": location, "message": "its shape differs",
        "fix": "Export it again.", **more,
    }  # fmt: skip


@pytest.fixture
def report():
    def case(id, axes="RAS", spacing=(1.5, 1.5, 3.0)):
        return {
            "id": id, "shape": [40, 50, 60], "spacing": list(spacing), "axes": axes,
            "hu": {"min": -1024.0, "p0.5": -1000.0, "p50": 40.0, "p99.5": 900.0, "max": 2000.0},
            "voxels": {"liver": 1000, "spleen": 50}, "ml": {"liver": 1500.0, "spleen": 75.5},
        }  # fmt: skip

    return {
        "root": f"/data/{HOSTILE}",
        "cases": [case("s1"), case(HOSTILE)],
        "findings": [
            finding("note", "s1"),
            finding("error", HOSTILE, location=HOSTILE, message=HOSTILE, fix=HOSTILE),
            finding("error", HOSTILE),
            finding("warning", "", location="split"),
        ],
        "overlaps": [{"a": "liver", "b": HOSTILE, "voxels": 12}, {"a": "liver", "b": "spleen", "voxels": 3456}],
        "unannotated": {HOSTILE: ["aorta", HOSTILE], "s1": []},
        "absent": {"s1": ["brain", "skull", "heart", "prostate"]},
    }


@pytest.fixture
def page(report):
    return dataset_page(report, {HOSTILE: Image.new("L", (40, 30), 90)})


def test_the_page_is_well_formed_and_counts_the_findings(page, parse):
    parsed = parse(page)
    for severity, count in (("error", 2), ("warning", 1), ("note", 1)):
        assert parsed.count("tr", **{"data-severity": severity}) == count
        assert parsed.count("div", **{"class": f"tile {severity}"}) == 1
    assert "1 of 2 cases has an error" in parsed.content()
    rows = re.findall(r'<tr data-severity="(\w+)"', page)
    assert rows == ["error", "error", "warning", "note"]


def test_every_text_is_escaped(page, parse, report):
    parsed = parse(page)
    assert not parsed.count("img", src="x")
    assert parsed.content().count(HOSTILE) >= 10
    assert report["root"] in parsed.content()


def test_images_lie_in_the_page_with_their_findings(page, parse):
    parsed = parse(page)
    (source,) = parsed.images
    image = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert image.size == (40, 30)
    assert parsed.count("figure") == 1


def test_structures_come_with_volumes_and_voxels_the_largest_first(page, parse):
    text = parse(page).content()
    assert text.index("liver") < text.index("spleen")
    assert "75.5" in text
    assert "1\u2009500" in text


def test_overlaps_come_most_first_in_either_form(report):
    report["overlaps"] = [{"structures": ["one", "two"], "voxels": 5}, {"a": "three", "b": "four", "voxels": 70}]
    page = dataset_page(report, {})
    assert page.index("<td>three</td><td>four</td>") < page.index("<td>one</td><td>two</td>")


def test_axes_are_those_of_the_body_and_not_of_the_arrays(report, parse):
    report["cases"] = [{**report["cases"][0], "axes": "SLP", "spacing": [5.0, 0.7, 0.8]}]
    text = parse(dataset_page(report, {})).content()
    for name, value in (("across", "0.7"), ("depth", "0.8"), ("height", "5")):
        assert re.search(rf"Spacing {name} \([^)]*\) median {re.escape(value)} mm", text)


def test_a_data_set_without_findings_has_a_good_verdict(report, parse):
    report["findings"] = []
    text = parse(dataset_page(report, {})).content()
    assert "No error: every case can be used" in text
    assert "No findings" in text


def test_an_empty_report_and_unknown_intensities_give_a_page(report, parse):
    assert "0" in parse(dataset_page({"root": "x", "cases": [], "findings": []}, {})).content()
    report["cases"][0]["hu"] = {"p0_5": None, "p50": None, "p99_5": None}
    parse(dataset_page(report, {}))


def test_an_error_of_the_data_set_as_a_whole_is_a_bad_verdict(report, parse):
    report["findings"] = [finding("error", "", location="meta.csv")]
    assert "The data set as a whole has an error" in parse(dataset_page(report, {})).content()


def test_the_page_is_written_whole_or_not_at_all(report, tmp_path):
    path = save_dataset_page(tmp_path / "out" / "check.html", report, {})
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [file.name for file in path.parent.iterdir()] == ["check.html"]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        save_dataset_page(tmp_path / "file" / "check.html", report, {})
