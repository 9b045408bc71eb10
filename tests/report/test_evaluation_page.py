import re

import pytest
from PIL import Image

from medseg.report.evaluation_page import digits, evaluation_page, measure_title, save_evaluation_page

HOSTILE = '<script>alert("x")</script>\'"&<img src=x onerror=alert(1)>'


def spread(mean):
    return {"mean": mean, "low": None if mean is None else mean - 0.1, "high": mean, "n": 0 if mean is None else 2}


def row(structure, dice, hd, state="found"):
    return {
        "structure": structure,
        "state": state,
        "dice": dice,
        "hd95_mm": hd,
        "truth_voxels": 5,
        "predicted_voxels": 5,
        "truth_ml": 1.0,
        "predicted_ml": 2.0,
    }


CONTENT = {
    "prediction": f"/data/<masks>{HOSTILE}",
    "truth": "/data/truth",
    "measures": ["dice", "hd95_mm"],
    "slices": 0,
    "f1": 0.7,
    "gi_tract": None,
    "bootstrap": {"samples": 2000},
    "mean": {"dice": spread(0.75), "hd95_mm": spread(4.0)},
    "structures": [
        {
            "structure": name,
            "annotated": 2,
            "present": 1,
            "missed": 1,
            "false_positive": 0,
            "invented_voxels": 0,
            "measures": {"dice": spread(dice), "hd95_mm": spread(hd)},
        }
        for name, dice, hd in (("kidney_left", 0.5, 7.0), ("liver", 0.9, 2.0), ("<b>heart</b>", None, None))
    ],
    "cases": [
        {
            "case": "s2",
            "notes": ["5 voxels overlap"],
            "mean": {"dice": 0.4, "hd95_mm": None},
            "structures": [row("kidney_left", 0.0, None, "missed"), row("liver", 0.8, 3.0)],
        },
        {
            "case": f"s1{HOSTILE}",
            "notes": [],
            "mean": {"dice": 0.95, "hd95_mm": 1.0},
            "structures": [row("liver", 1.0, 0.0), row("<b>heart</b>", None, None, "absent")],
        },
    ],
    "failed": {f"s3{HOSTILE}": f"it is <broken>{HOSTILE}"},
    "not_predicted": ["skull", HOSTILE],
    "not_in_truth": [],
    "without_prediction": [],
    "without_truth": [],
}


@pytest.fixture
def page():
    images = {"s2": [(name, Image.new("RGB", (20, 10))) for name in ("axial", "coronal", "sagittal")]}
    return evaluation_page(CONTENT, images)


def test_the_page_is_well_formed_and_every_text_escaped(page, parse):
    parsed = parse(page)
    assert len(parsed.images) == 3
    assert not parsed.count("img", src="x")
    assert not parsed.count("broken")
    assert parsed.content().count(HOSTILE) >= 5
    assert "<b>heart</b>" not in page
    assert "it is &lt;broken&gt;" in page


def test_means_states_and_left_out_names_are_shown(page):
    text = re.sub(r"<[^>]+>", " ", page)
    assert re.search(r"0\.750\s+Dice\s+0\.650 to 0\.750", text)
    assert "Structures of the truth that the predictions lack, not evaluated: 2" in text
    assert "skull" in text
    assert "5 voxels overlap" in text
    assert re.search(r"0\.000 kidney_ left\s+missed", text)


def test_a_structure_that_is_not_there_is_invented_and_not_a_dice_of_0(parse):
    spleen = {**CONTENT["structures"][0], "structure": "spleen", "present": 0, "missed": 0, "false_positive": 2}
    spleen |= {"invented_voxels": 1234, "measures": {"dice": spread(0.0), "hd95_mm": spread(None)}}
    case = {**CONTENT["cases"][0], "structures": [row("spleen", 0.0, None, "false positive")]}
    page = evaluation_page({**CONTENT, "structures": [spleen], "cases": [case]}, {})
    text = re.sub(r"<[^>]+>", " ", page)
    assert re.search(r"spleen\s+invented: 1,234 voxels", text)
    assert re.search(r"spleen\s+false positive\s+invented: 5 voxels", text)


def test_cells_have_the_number_to_sort_by(page):
    assert '<td class="n wide" data-value="7">7' in page
    assert '<td class="n" data-value="">–' in page
    assert page.count('<table class="sortable">') == 3


def test_rows_of_the_plots_hold_the_values_and_the_worst_comes_first(page):
    dice = page[page.index('data-measure="dice"') : page.index('data-measure="hd95_mm"')]
    assert dice.index("kidney_left: 1 case") < dice.index("liver: 2 cases, 0.8 to 1")
    assert "heart: " not in dice  # no case has a value of it
    assert "liver: 2 cases, 0 to 3 mm, median 1.5 mm" in page


def test_a_page_without_images_or_notes_has_no_empty_sections():
    bare = {**CONTENT, "failed": {}, "not_predicted": [], "cases": [{**CONTENT["cases"][1]}]}
    page = evaluation_page(bare, {})
    assert 'id="images"' not in page
    assert 'id="notes"' not in page


def test_it_is_written_whole(tmp_path):
    path = save_evaluation_page(tmp_path / "evaluation.html", CONTENT, {})
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (-0.25, "\u22120.250"), (0.0, "0.000"), (1.0, "1"), (12.345, "12.3")]
)
def test_numbers_have_three_digits(value, text):
    assert digits(value) == text


def test_measures_have_titles():
    assert [measure_title(measure) for measure in ("dice", "nsd_2.5mm", "hd95_mm", "else")] == [
        "Dice",
        "NSD at 2.5 mm",
        "HD95, mm",
        "else",
    ]
