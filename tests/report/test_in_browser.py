"""The page of a run in a real browser: no error on its console, and sorting, searching, pointing and sliding work."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from medseg.report.run_data import read_run
from medseg.report.run_page import run_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=2000",
]
DRIVER = """<script>
var found = {};
function names() { return [].map.call(document.querySelectorAll("table.structures tbody tr:not([hidden])"),
  function (row) { return row.children[0].textContent; }); }
function type(selector, text) { var input = document.querySelector(selector); input.value = text;
  input.dispatchEvent(new Event("input")); }
found.worst = names();
var best = document.querySelectorAll("table.structures th button")[2];
best.click(); best.click();
found.best = names();
type("input.search", "B"); found.searched = names();
type("input.search", ""); document.querySelector('.chips button[value="poor"]').click(); found.poor = names();
type("input.seek", "train seed");
found.settings = [].map.call(document.querySelectorAll(".leaf:not([hidden])"), function (l) { return l.dataset.path; });
found.open = document.querySelectorAll(".tree details[open]").length;
var plot = document.querySelector(".chart .plot"), box = plot.getBoundingClientRect();
plot.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 2, bubbles: true }));
found.pointed = document.querySelectorAll(".chart .legend output")[1].textContent;
found.at = document.querySelector(".chart .at").textContent;
plot.dispatchEvent(new PointerEvent("pointerleave"));
found.left = document.querySelectorAll(".chart .legend output")[1].textContent;
type(".shots input", "0");
found.shot = document.querySelector(".shots output").textContent;
found.shots = document.querySelectorAll(".shot:not(.off)").length;
found.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
document.title = JSON.stringify(found);
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_works(made, tmp_path):
    names = ["a", "b", "bc", "d"]
    folder = made(epochs=4, batches=5, structures=names, pictures=2, config={"train": {"seed": 1, "x": {"seed": 2}}})
    run = read_run(folder)
    page = tmp_path / "page.html"
    page.write_text(run_page(run, {}).replace("</body>", DRIVER), encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=500,3000", "--dump-dom",
         page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    found = json.loads(unescape(re.search("<title>(.*?)</title>", done.stdout, re.DOTALL)[1]))
    dice = run.of("validation")[-1]["dice"]
    assert found["worst"] == sorted(names, key=dice.get)
    assert found["best"] == sorted(names, key=dice.get, reverse=True)
    assert found["searched"] == ["bc", "b"]
    assert sorted(found["poor"]) == sorted(name for name in names if dice[name] < 0.5)
    assert found["settings"] == ["train#seed", "train#x#seed"]
    assert found["open"] == 2
    losses = [row["loss"] for row in run.of("epoch")]
    assert float(found["pointed"]) == pytest.approx(losses[1], rel=1e-3)  # the middle of four epochs
    assert found["at"] == "epoch 2"
    assert float(found["left"]) == pytest.approx(losses[3], rel=1e-2)
    assert (found["shot"], found["shots"]) == ("epoch 1", 1)
    assert found["wide"] == 0
