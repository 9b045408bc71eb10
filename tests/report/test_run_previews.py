import base64
import io

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medseg.report.run_data import RunData, read_run
from medseg.report.run_previews import chosen, previews


@given(st.sets(st.integers(0, 3000), min_size=1, max_size=300), st.integers(3, 12), st.data())
def test_first_best_and_last_are_always_chosen(epochs, most, data):
    best = data.draw(st.sampled_from(sorted(epochs)))
    found = chosen(sorted(epochs), best, most)
    assert {min(epochs), best, max(epochs)} <= set(found) <= epochs
    assert found == sorted(set(found))
    assert len(found) <= most


def pictures(html):
    return [
        Image.open(io.BytesIO(base64.b64decode(part.split('"')[0])))
        for part in html.split("data:image/jpeg;base64,")[1:]
    ]


def test_the_first_and_the_last_picture_are_in_the_page_and_smaller(made):
    run = read_run(made(epochs=30, batches=1, pictures=30))
    html = previews(run)
    assert len(pictures(html)) <= 9
    assert "of 30 are in this file" in html
    assert 'data-epoch="1"' in html
    assert 'data-said="epoch 30 (last)"' in html
    assert 'data-said="epoch 29 (best)"' in html
    assert len(html) < 5_000_000


def test_a_wide_picture_is_made_smaller(tmp_path):
    path = tmp_path / "epoch_0000_a.png"
    Image.new("RGB", (2600, 370)).save(path)
    html = previews(RunData(tmp_path, pictures={"a": {0: path}}))
    assert [picture.size for picture in pictures(html)] == [(1280, 182)]
    assert "before training" in html
    assert "are in this file" not in html


def test_a_damaged_picture_says_so_and_names_are_escaped(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"no picture")
    html = previews(RunData(tmp_path, pictures={"<script>": {1: path}}))
    assert "<script>" not in html
    assert "cannot identify image file" in html


def test_no_pictures_no_section(tmp_path):
    assert previews(RunData(tmp_path)) == ""
