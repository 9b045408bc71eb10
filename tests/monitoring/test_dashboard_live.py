"""The dashboard in a real browser, while a run goes: its curves grow."""

import json
import shutil
import subprocess
import urllib.request

import numpy as np
import pytest
from PIL import Image

from medseg.monitoring.settings import read_state

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1400,1200 --virtual-time-budget=15000"
)


def screenshot(url, path, profile):
    command = [BROWSER, *FLAGS.split(), f"--user-data-dir={profile}", f"--screenshot={path}", url]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def points(url, folder):
    """How many losses the page's own interface gives."""
    state = read_state(folder)
    asked = json.dumps({"project": state["project"], "run": state["name"], "run_id": state["id"]}).encode()
    request = urllib.request.Request(
        f"{url.partition('/?')[0]}/api/get_logs", asked, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        content = json.loads(response.read())
    return sum("train/loss" in row for row in content["data"])


@pytest.mark.long
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
def test_the_loss_curve_grows_between_two_looks(lab, tmp_path):
    folder = tmp_path / "runs" / "unet2d" / "r1"
    process = lab.train(folder, {"backend": "trackio"}, 2000, 0.05)
    try:
        url = lab.wait_for(lambda: read_state(folder).get("url"))
        lab.wait_for(lambda: points(url, folder) > 20)
        first = points(url, folder)
        one = screenshot(url, tmp_path / "one.png", tmp_path / "profile1")
        lab.wait_for(lambda: points(url, folder) > 5 * first, 90)
        two = screenshot(url, tmp_path / "two.png", tmp_path / "profile2")
    finally:
        process.kill()
        process.communicate()
    # a page without curves is white but for its frame
    assert one.std() > 5
    assert (np.abs(one - two).sum(axis=-1) > 60).sum() > 500
    lab.wait_for(lambda: read_state(folder).get("done"))
