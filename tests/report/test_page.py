import base64
import io

import jinja2
import numpy as np
import pytest
from PIL import Image

from medseg.report.page import data_url, render

CONTENT = {
    "prediction": "p", "truth": "t", "measures": ["dice"], "slices": 0, "f1": None, "gi_tract": None,
    "mean": {"dice": {"mean": None, "low": None}}, "cases": [],
    "structures": [], "bootstrap": {"samples": 1}, "failed": {}, "without_prediction": [],
}  # fmt: skip
VARIABLES = {
    "name": "a <b>", "content": CONTENT, "titles": {"dice": "Dice"}, "digits": str, "count_state": int,
    "main": ["dice"], "table_measures": ["dice"], "left_out": {"without_prediction": "left out"}, "plots": {},
    "images": {}, "error_kinds": [], "cases": [], "worst": [], "omitted": 0,
}  # fmt: skip


def test_every_page_is_one_file_that_fetches_nothing():
    html = render("evaluation", **VARIABLES)
    assert "<title>Evaluation: a &lt;b&gt;</title>" in html
    assert "default-src 'none'" in html
    assert "http" not in html.replace("http-equiv", "").split("<style>")[0]
    assert html.startswith("<!doctype html>")
    assert html.endswith("</html>\n")


def test_empty_sections_are_left_out():
    html = render("evaluation", **VARIABLES)
    assert '<a href="#structures">Structures</a>' in html
    assert "#images" not in html
    assert "#notes" not in html


def test_a_missing_variable_is_an_error_and_never_an_empty_place():
    with pytest.raises(jinja2.UndefinedError, match="content"):
        render("evaluation", **{key: value for key, value in VARIABLES.items() if key != "content"})


def test_an_image_in_a_page_keeps_its_values():
    image = Image.fromarray(np.full((8, 9, 3), 120, np.uint8))
    kind, data = data_url(image).split(",")
    assert kind == "data:image/jpeg;base64"
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert back.shape == (8, 9, 3)
    assert abs(back.astype(int) - 120).max() <= 1
