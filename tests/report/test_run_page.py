import json
import os
import platform
import re
from html.parser import HTMLParser

import pytest

from medseg.report.run_data import RunData, read_run
from medseg.report.run_page import run_page, save_run_page

HOSTILE = '<script>alert("x")</script>\'"&<img src=x onerror=alert(1)>'


class Tags(HTMLParser):
    """Which tags a page has, and which attributes that could run anything."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.handlers, self.sources = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        self.sources += [value for name, value in attributes if name in ("src", "href")]


def tiles(html):
    html = html.replace("\u00a0", " ")
    return {name: value for value, name in re.findall(r'<div class="tile"><b>(.*?)</b><span>(.*?)</span>', html)}


def test_the_header_says_what_the_rows_say(made):
    run = read_run(made(epochs=5, batches=4, resumed=3))
    html = run_page(run, {})
    printable = tiles(html)
    last, best = run.of("validation")[-1]["mean_dice"], max(row["mean_dice"] for row in run.of("validation"))
    assert printable["Best mean Dice"] == f"{best:.4f}"
    assert printable["Last mean Dice"] == f"{last:.4f}"
    assert printable["Epochs done"] == "5"
    assert printable["Time at work"] == "40 s"  # 20 batches of 2 s; the two hours between are none of it
    assert printable["Loss, last epoch"] == f"{run.of('epoch')[-1]['loss']:.4g}"
    for text in ("resumed once", "in epoch 4", "of 5", "cuda:0", "2 training, 1 validation, 0 test", "0123456789ab",
                 "with changes that are not committed", "sha256-012345678", "Finished", "unet2d, demo"):  # fmt: skip
        assert text in html


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"state": "running", "host": platform.node(), "pid": 2**22 + 1}, "Died: its process is gone"),
        ({"state": "running", "host": platform.node(), "pid": os.getpid()}, ">Running<"),
        ({"state": "failed", "error": f"Bad: {HOSTILE}"}, "Bad: &lt;script&gt;"),
        ({"state": "interrupted"}, "Interrupted"),
        ({"state": "odd"}, "State unknown"),
    ],
)
def test_the_state_is_said(made, record, said):
    assert said in run_page(read_run(made(**record)), {})


def test_a_running_run_says_how_long_it_will_take(made):
    folder = made(epochs=3, batches=4, state="running")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(
            json.dumps({"kind": "batch", "time": 1.9e9, "epoch": 4, "iteration": 13, "seconds_left": 7500}) + "\n"
        )
    assert tiles(run_page(read_run(folder), {}))["Time left"] == "2 h 5 min"


def test_nothing_in_a_run_can_add_a_tag_or_fetch_anything(made):
    folder = made(structures=[HOSTILE, "liver"], config={HOSTILE: {HOSTILE: HOSTILE}}, name="run-<b>", bundle=HOSTILE,
                  error=HOSTILE, dataset=HOSTILE, versions={HOSTILE: HOSTILE}, cases={HOSTILE: [HOSTILE]},
                  git={"commit": HOSTILE}, started=HOSTILE, data=HOSTILE, command=[HOSTILE])  # fmt: skip
    rows = [{"kind": "warning", "epoch": 1, "iteration": 1, "level": HOSTILE, "title": HOSTILE, "text": HOSTILE},
            {"kind": "begin", "device": HOSTILE}]  # fmt: skip
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    found = Tags(run_page(read_run(folder), {HOSTILE: 1}))
    assert found.tags.count("script") == 1
    assert "img" not in found.tags
    assert found.handlers == []
    assert all(source.startswith("#") for source in found.sources)


def test_a_folder_with_little_in_it_still_has_a_page(tmp_path):
    (tmp_path / "training_history.json").write_text('{"epochs": [{"epoch": 1, "loss": 2.0}]}')
    html = run_page(read_run(tmp_path), {})
    assert "run.json is not there" in html
    assert "There has been no validation yet" in html
    assert tiles(html)["Best mean Dice"] == "\u2013"


def test_a_dice_of_zero_is_a_value(tmp_path):
    rows = [(number, {"epoch": number, "mean_dice": dice}) for number, dice in ((1, 0.1), (2, 0.0))]
    assert tiles(run_page(RunData(tmp_path, rows={"validation": rows}), {}))["Last mean Dice"] == "0.0000"


def test_a_run_that_has_just_begun_has_a_page(tmp_path):
    html = run_page(RunData(tmp_path, {"bundle": "unet2d", "state": "interrupted"}), {})
    assert "Nothing has been recorded yet" in html


def test_a_run_of_117_structures_and_1000_epochs_is_a_small_page(made):
    names = [f"structure_{index}" for index in range(117)]
    run = read_run(made(epochs=1000, batches=10, structures=names, resumed=500))
    html = run_page(run, {})
    assert len(html) < 2_000_000
    dice = run.of("validation")[-1]["dice"]
    for name in (names[0], names[116]):
        assert f'{name.replace("_", "_<wbr>")}</td><td class="n" data-value="{dice[name]:.6g}">' in html


def test_the_page_is_written_whole(made, tmp_path):
    path = save_run_page(tmp_path / "out" / "page.html", read_run(made()))
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert text.endswith("</html>\n")
    assert [one.name for one in path.parent.iterdir()] == ["page.html"]
