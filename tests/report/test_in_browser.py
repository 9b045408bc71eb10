"""The page of a run in a real browser: no error on its console, and sorting, searching, pointing and sliding work."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from medseg.report.run_page import run_page
from medseg.runs import Run

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
var results = {};
function names() { return [].map.call(document.querySelectorAll("table.structures tbody tr:not([hidden])"),
  function (row) { return row.children[0].textContent; }); }
function type(selector, text) { var input = document.querySelector(selector); input.value = text;
  input.dispatchEvent(new Event("input")); }
results.worst = names();
var best = document.querySelectorAll("table.structures th button")[2];
best.click(); best.click();
results.best = names();
type("input.search", "B"); results.searched = names();
type("input.search", ""); document.querySelector('.chips button[value="poor"]').click(); results.poor = names();
type("input.seek", "train seed");
var leaves = document.querySelectorAll(".leaf:not([hidden])");
results.settings = [].map.call(leaves, function (leaf) { return leaf.dataset.path; });
results.open = document.querySelectorAll(".tree details[open]").length;
var plot = document.querySelector(".chart .plot"), box = plot.getBoundingClientRect();
plot.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 2, bubbles: true }));
results.pointed = document.querySelectorAll(".chart .legend output")[1].textContent;
results.at = document.querySelector(".chart .at").textContent;
plot.dispatchEvent(new PointerEvent("pointerleave"));
results.left = document.querySelectorAll(".chart .legend output")[1].textContent;
type(".shots input", "0");
results.shot = document.querySelector(".shots output").textContent;
results.shots = document.querySelectorAll(".shot:not(.off)").length;
results.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
document.title = JSON.stringify(results);
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_works(make_run, tmp_path):
    names = ["a", "b", "bc", "d"]
    folder = make_run(
        epochs=4, batches=5, structures=names, previews=2, config={"train": {"seed": 1, "x": {"seed": 2}}}
    )
    run = Run(folder)
    page = tmp_path / "page.html"
    page.write_text(run_page(run).replace("</body>", DRIVER), encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=500,3000", "--dump-dom",
         page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    results = json.loads(unescape(re.search("<title>(.*?)</title>", done.stdout, re.DOTALL)[1]))
    dice = run.rows_of("validation")[-1]["dice"]
    assert results["worst"] == sorted(names, key=dice.get)
    assert results["best"] == sorted(names, key=dice.get, reverse=True)
    assert results["searched"] == ["bc", "b"]
    assert sorted(results["poor"]) == sorted(name for name in names if dice[name] < 0.5)
    assert results["settings"] == ["train#seed", "train#x#seed"]
    assert results["open"] == 2
    losses = [row["loss"] for row in run.rows_of("epoch")]
    assert float(results["pointed"]) == pytest.approx(losses[1], rel=1e-3)  # the middle of four epochs
    assert results["at"] == "epoch 2"
    assert float(results["left"]) == pytest.approx(losses[3], rel=1e-2)
    assert (results["shot"], results["shots"]) == ("epoch 1", 1)
    assert results["wide"] == 0
