"""trackio's page, over HTTP and in a real browser."""

import json
import shutil
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image

from medseg.errors import RunError
from medseg.monitoring.dashboard import Dashboard, serve
from medseg.monitoring.settings import read_state

pytestmark = pytest.mark.slow

SERVE = "import sys; from medseg.monitoring.dashboard import serve; serve(sys.argv[1], int(sys.argv[2]) or None, print)"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def served(lab, finished):
    """The page of a synced run, served by another process."""
    lab.feed(finished)
    root = finished.parent.parent
    process = subprocess.Popen([sys.executable, "-u", "-c", SERVE, str(root), str(free_port())], stdout=subprocess.PIPE)
    yield root, process.stdout.readline().decode().strip()
    process.kill()
    process.wait()
    process.stdout.close()


def ask(url, call, **content):
    request = urllib.request.Request(
        f"{url}/api/{call}", json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.loads(response.read())


def test_the_page_shows_the_runs_after_they_have_ended(served, lab):
    _root, url = served
    with urllib.request.urlopen(url, timeout=10) as response:
        assert b"<html" in response.read().lower()
    assert "medseg-unet2d" in str(ask(url, "get_all_projects"))


def test_a_served_page_is_used_again(served):
    root, url = served
    assert Dashboard(root / ".trackio").link() == url
    assert Dashboard(root / ".trackio").ensure() == url
    said = []
    serve(root, ready=said.append)  # at once back
    assert said == [url]


def test_the_page_of_a_dead_process_has_no_link(finished, tmp_path):
    store = tmp_path / ".trackio"
    store.mkdir()
    told = {"url": f"http://127.0.0.1:{free_port()}", "pid": 2**22 + 1, "host": "elsewhere"}
    (store / "dashboard.json").write_text(json.dumps(told))
    assert Dashboard(store).link() is None


def test_a_folder_without_runs_cannot_be_served(tmp_path):
    with pytest.raises(RunError, match="no run here was shown with trackio"):
        serve(tmp_path)


def test_a_port_in_use_is_an_error(tmp_path):
    (tmp_path / ".trackio").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run([sys.executable, "-c", SERVE, str(tmp_path), port], capture_output=True, text=True)
    assert f"port {port}: another program uses it" in done.stderr


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
