import base64
import io
import json
import os
import platform
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medseg.report.run_page import run_page, save_run_page
from medseg.report.run_sections import by_structure, previews, select_epochs
from medseg.runs import Run

HOSTILE = '<script>alert("x")</script>\'"&<img src=x onerror=alert(1)>'


def tiles(html):
    html = html.replace("\u00a0", " ")
    return {name: value for value, name in re.findall(r'<div class="tile"><b>(.*?)</b><span>(.*?)</span>', html)}


def test_the_header_shows_the_values_of_the_rows(make_run):
    run = Run(make_run(epochs=5, batches=4, resumed=3))
    html = run_page(run)
    values = tiles(html)
    last, best = run.rows_of("validation")[-1]["mean_dice"], max(row["mean_dice"] for row in run.rows_of("validation"))
    assert values["Best mean Dice"] == f"{best:.4f}"
    assert values["Last mean Dice"] == f"{last:.4f}"
    assert values["Epochs done"] == "5"
    assert values["Time at work"] == "40 s"  # 20 batches of 2 s, without the two hours between
    assert values["Loss, last epoch"] == f"{run.rows_of('epoch')[-1]['loss']:.4g}"
    for text in ("resumed once", "in epoch 4", "of 5", "cuda:0", "2 training, 1 validation, 0 test", "0123456789ab",
                 "with uncommitted changes", "sha256-012345678", "Finished", "unet2d, demo"):  # fmt: skip
        assert text in html


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"state": "running", "host": platform.node(), "pid": 2**22 + 1}, "Died: its process is gone"),
        ({"state": "running", "host": platform.node(), "pid": os.getpid()}, ">Running<"),
        ({"state": "failed", "error": f"Bad: {HOSTILE}"}, "Bad: &lt;script&gt;"),
        ({"state": "interrupted"}, "Interrupted"),
        ({"state": "odd"}, "State unknown"),
    ],
)
def test_the_state_is_shown(make_run, record, text):
    assert text in run_page(Run(make_run(**record)))


def test_a_running_run_shows_the_time_left(make_run):
    folder = make_run(epochs=3, batches=4, state="running")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(
            json.dumps({"kind": "batch", "time": time.time(), "epoch": 4, "iteration": 13, "seconds_left": 7500}) + "\n"
        )
    assert tiles(run_page(Run(folder)))["Time left"] == "2 h 5 min"


def test_nothing_in_a_run_can_add_a_tag_or_fetch_anything(make_run, parse):
    folder = make_run(
        structures=[HOSTILE, "liver"], config={HOSTILE: {HOSTILE: HOSTILE}}, name="run-<b>", bundle=HOSTILE,
        error=HOSTILE, dataset=HOSTILE, versions={HOSTILE: HOSTILE}, cases={HOSTILE: [HOSTILE]},
        git={"commit": HOSTILE}, started=HOSTILE, data=HOSTILE, command=[HOSTILE],
    )  # fmt: skip
    rows = [{"kind": "warning", "epoch": 1, "iteration": 1, "level": HOSTILE, "title": HOSTILE, "text": HOSTILE},
            {"kind": "begin", "device": HOSTILE}]  # fmt: skip
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    page = parse(run_page(Run(folder)))
    assert page.images == []
    assert page.content().count(HOSTILE) >= 15


def test_a_folder_with_a_history_alone_has_a_page(tmp_path):
    (tmp_path / "training_history.json").write_text('{"epochs": [{"epoch": 1, "loss": 2.0}]}')
    html = run_page(Run(tmp_path))
    assert "run.json is missing" in html
    assert "There has been no validation yet" in html
    assert tiles(html)["Best mean Dice"] == "\u2013"


def test_a_dice_of_zero_is_a_value(fake_run):
    rows = [(number, {"epoch": number, "mean_dice": dice}) for number, dice in ((1, 0.1), (2, 0.0))]
    assert tiles(run_page(fake_run(rows={"validation": rows})))["Last mean Dice"] == "0.0000"


def test_a_run_that_has_just_begun_has_a_page(fake_run):
    html = run_page(fake_run(record={"bundle": "unet2d", "state": "interrupted"}))
    assert "Nothing has been recorded yet" in html


def test_a_run_of_117_structures_and_1000_epochs_is_a_small_page(make_run):
    names = [f"structure_{index}" for index in range(117)]
    run = Run(make_run(epochs=1000, batches=10, structures=names, resumed=500))
    html = run_page(run)
    assert len(html) < 2_000_000
    dice = run.rows_of("validation")[-1]["dice"]
    for name in (names[0], names[116]):
        assert f'{name.replace("_", "_<wbr>")}</td><td class="n" data-value="{dice[name]:.6g}">' in html


def test_the_page_is_written_whole(make_run, tmp_path):
    path = save_run_page(tmp_path / "out" / "page.html", Run(make_run()))
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert text.endswith("</html>\n")
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


@given(st.sets(st.integers(0, 3000), min_size=1, max_size=300), st.integers(3, 12), st.data())
def test_first_best_and_last_preview_are_always_selected(epochs, count, data):
    best = data.draw(st.sampled_from(sorted(epochs)))
    selected = select_epochs(sorted(epochs), best, count)
    assert {min(epochs), best, max(epochs)} <= set(selected) <= epochs
    assert selected == sorted(set(selected))
    assert len(selected) <= count


def images(html):
    return [
        Image.open(io.BytesIO(base64.b64decode(part.split('"')[0])))
        for part in html.split("data:image/jpeg;base64,")[1:]
    ]


def test_the_first_and_the_last_preview_are_in_the_page(make_run):
    run = Run(make_run(epochs=30, batches=1, previews=30))
    html = run_page(run)
    assert len(images(html)) <= 9
    assert "of 30 are in this file" in html
    assert 'data-epoch="1"' in html
    assert 'data-title="epoch 30 (last)"' in html
    assert 'data-title="epoch 29 (best)"' in html
    assert len(html) < 5_000_000


def test_a_wide_preview_is_made_smaller(fake_run, tmp_path):
    path = tmp_path / "epoch_0000_a.png"
    Image.new("RGB", (2600, 370)).save(path)
    html = run_page(fake_run(previews={"a": {0: path}}))
    assert [image.size for image in images(html)] == [(1280, 182)]
    assert "before training" in html
    assert "are in this file" not in html


def test_a_damaged_preview_shows_its_error_and_names_are_escaped(fake_run, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"no image")
    html = run_page(fake_run(previews={"<script>": {1: path}}))
    assert html.count("<script>") == 1  # the page's own
    assert "cannot identify image file" in html


def test_a_run_without_previews_has_no_section_for_them(fake_run):
    assert previews(fake_run()) is None
    assert 'id="previews"' not in run_page(fake_run())


def test_every_setting_is_in_the_tree_and_escaped(fake_run):
    config = {"a<b>": {"c": {"_target_": "T<i>", "d": [1, {"e": "</script>"}]}}, "f": [1, 2], "empty": {}, "none": None}
    html = run_page(fake_run(record={"bundle": "x"}, config=config))
    for path in ("a&lt;b&gt;#c#_target_", "a&lt;b&gt;#c#d#0", "a&lt;b&gt;#c#d#1#e", "f", "empty", "none"):
        assert f'data-path="{path}"' in html
    assert html.count("</script>") == 1  # the page's own
    assert "T<i>" not in html
    assert "is not on this machine" in html


def test_settings_are_compared_with_the_recipe_of_the_bundle(fake_run, repository):
    recipe = json.loads((repository / "bundles/unet2d/configs/train.json").read_text(encoding="utf-8"))
    record = {"bundle": "unet2d"}
    assert "The same as the recipe unet2d" in run_page(fake_run(record=record, config=recipe))
    html = run_page(fake_run(record=record, config={**recipe, "max_epochs": 12345, "<b>": 1}))
    assert "The differences from the recipe unet2d" in html
    assert "<code>max_<wbr>epochs</code></td><td><code>12345</code>" in html
    assert "&lt;b&gt;</code></td><td><code>1</code>" in html


@pytest.mark.parametrize("bundle", ["missing", "../bundles/unet2d/../.."])
def test_a_recipe_that_is_not_on_this_machine_is_named(fake_run, bundle):
    assert f"The recipe {bundle} is not on this machine" in run_page(
        fake_run(record={"bundle": bundle}, config={"a": 1})
    )


def test_a_run_without_config_has_no_settings(fake_run):
    assert 'id="settings"' not in run_page(fake_run(record={"bundle": "unet2d"}))


@pytest.fixture
def validated(fake_run):
    """Make a run of which only the Dice of each validation is known."""

    def make(*validations, **fields):
        rows = [(index, {"epoch": index + 1, "dice": dice, **fields}) for index, dice in enumerate(validations)]
        return fake_run(rows={"validation": rows})

    return make


def cells(html):
    table = html.split('class="sortable structures"')[1].split("<tbody>")[1].split("</tbody>")[0]
    return [re.findall(r'data-value="([^"]*)"', row) for row in table.split("</tr>")[:-1]]


def test_the_table_holds_last_best_and_its_epoch_the_worst_first(validated):
    html = run_page(validated({"a": 0.9, "b": 0.2, "c": 0.3}, {"a": 0.8, "b": 0.3, "c": None}, {"a": 0.7, "b": 0.1}))
    assert cells(html) == [["0.1", "0.3", "2"], ["0.7", "0.9", "1"], ["", "0.3", "1"]]
    assert 'data-kinds="poor"' in html
    assert 'data-kinds="none"' in html


def test_f1_stands_beside_dice_if_it_was_measured(validated):
    assert cells(run_page(validated({"a": 0.9}, f1={"a": 0.6}))) == [["0.9", "0.6", "0.9", "1"]]


def test_a_structure_that_is_not_in_every_validation_has_gaps(validated):
    assert by_structure(validated({"a": 1}, {"b": 0.5}), "dice") == {"a": [1.0, None], "b": [None, 0.5]}


def test_all_117_structures_have_a_row_and_their_curve(make_run):
    names = [f"structure_{index}" for index in range(117)]
    run = Run(make_run(epochs=5, batches=1, structures=names))
    html = run_page(run)
    assert len(cells(html)) == 117
    assert html.count('class="spark"') == 115  # two of them never have a value
    assert list(by_structure(run, "dice")) == names


def test_a_run_without_scores_has_no_table(fake_run, validated):
    for run in (fake_run(), validated({})):
        assert "sortable structures" not in run_page(run)


def test_the_last_histograms_of_weights_are_shown_and_names_escaped(make_run, fake_run):
    html = run_page(Run(make_run()))
    assert "conv.<wbr>weight" in html
    assert "in epoch 3" in html
    rows = [(index, {"epoch": index, "parameters": {"<b>": {"edges": [0, index], "counts": [1]}}}) for index in (1, 2)]
    html = run_page(fake_run(rows={"histogram": rows}))
    assert "<span>0</span><span>2</span>" in html
    assert "<code>&lt;b&gt;</code>" in html
    assert 'id="spread"' not in run_page(fake_run())
