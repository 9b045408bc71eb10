import base64
import io

import numpy as np
from PIL import Image

from medseg.report.page import data_url, page


def test_empty_sections_are_left_out_and_nothing_is_fetched():
    sections = [("one", "One", "<p>here</p>"), ("two", "Two", "")]
    html = page("a <b>", "<h1>top</h1>", sections, "end", ["dataset_page.css"], ["dataset_page.js"])
    assert "<title>a &lt;b&gt;</title>" in html
    assert '<a href="#one">One</a>' in html
    assert "two" not in html.split("<body>")[1].split("<footer>")[0]
    assert "default-src 'none'" in html
    assert "http" not in html.replace("http-equiv", "").split("<style>")[0]


def test_a_picture_stays_what_it_is():
    picture = Image.fromarray(np.full((8, 9, 3), 120, np.uint8))
    kind, data = data_url(picture).split(",")
    assert kind == "data:image/jpeg;base64"
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert back.shape == (8, 9, 3)
    assert abs(back.astype(int) - 120).max() <= 1
