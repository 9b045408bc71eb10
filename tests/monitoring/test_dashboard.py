import json
import socket
import subprocess
import sys
import urllib.request

import pytest

from medseg.errors import RunError
from medseg.monitoring.dashboard import Dashboard, serve

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


def test_one_that_is_served_is_used_again(served):
    root, url = served
    assert Dashboard(root / ".trackio").link() == url
    assert Dashboard(root / ".trackio").ensure() == url
    said = []
    serve(root, ready=said.append)  # at once back
    assert said == [url]


def test_one_whose_process_is_gone_is_not_there(finished, tmp_path):
    store = tmp_path / ".trackio"
    store.mkdir()
    told = {"url": f"http://127.0.0.1:{free_port()}", "pid": 2**22 + 1, "host": "elsewhere"}
    (store / "dashboard.json").write_text(json.dumps(told))
    assert Dashboard(store).link() is None


def test_a_folder_without_runs_says_so(tmp_path):
    with pytest.raises(RunError, match=r"must hold runs that trackio was told of"):
        serve(tmp_path)


def test_a_port_that_is_taken_says_so(tmp_path):
    (tmp_path / ".trackio").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run([sys.executable, "-c", SERVE, str(tmp_path), port], capture_output=True, text=True)
    assert f"port {port}: must be free" in done.stderr
