import json
import os
import signal
import subprocess
import sys

import pytest

from medseg.monitoring.control import start
from medseg.monitoring.settings import Settings, read_state
from medseg.runs.metrics_log import append_row
from medseg.runs.record import this_process

pytestmark = pytest.mark.slow


def batch(number):
    return {"kind": "batch", "time": 1e9 + number, "epoch": 1, "iteration": number, "loss": 1 / (number + 1)}


@pytest.fixture
def going(lab, tmp_path):
    """A run that goes, as far as its record says: this process is its trainer."""
    folder = lab.make_run(tmp_path / "runs" / "unet2d" / "r1", [batch(n) for n in range(5)], "running")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, **this_process()}))
    return folder


def finish(folder):
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "state": "finished"}))


def sent(folder):
    return read_state(folder).get("rows", 0)


@pytest.mark.parametrize("backend", ["trackio", "wandb"])
def test_a_killed_and_restarted_uploader_sends_each_row_once(lab, going, backend):
    Settings.of({"backend": backend, "dashboard": False}).filled(going).save(going)
    for stop in (8, 12):
        process = start(going)
        lab.wait_for(lambda: sent(going) >= 5)
        for number in range(stop - 3, stop):
            append_row(going, batch(number))
        lab.wait_for(lambda stop=stop: sent(going) >= stop - 3)
        process.kill()
        process.wait()
        (going / "monitor" / "state.json").unlink()
    process = start(going)
    for number in range(12, 15):
        append_row(going, batch(number))
    finish(going)
    assert process.wait(60) == 0
    steps = list(range(14))
    if backend == "trackio":
        rows, ids, _ = lab.in_trackio(going)
    else:
        records = lab.in_wandb(going)
        rows, ids = lab.history(records), {r["run"]["run_id"] for r in records if r["type"] == "run"}
    assert [step for step, _ in rows] == steps
    assert [values["iteration"] for _, values in rows] == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14]
    assert ids == {Settings.load(going).id}


def test_the_uploader_ends_with_a_run_whose_process_died(lab, going):
    trainer = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    record = json.loads((going / "run.json").read_text())
    record |= {"pid": trainer.pid, "pid_started": None}
    (going / "run.json").write_text(json.dumps(record))
    Settings.of({"backend": "trackio", "dashboard": False}).filled(going).save(going)
    process = start(going)
    lab.wait_for(lambda: sent(going) == 5)
    append_row(going, batch(5))
    trainer.kill()
    trainer.wait()
    assert process.wait(30) == 0
    assert len(lab.in_trackio(going)[0]) == 6
    assert read_state(going)["done"]


def test_only_one_uploader_works_at_a_run(lab, going):
    Settings.of({"backend": "trackio", "dashboard": False}).filled(going).save(going)
    process = start(going)
    lab.wait_for(lambda: sent(going) == 5)
    assert lab.feed(going, "--once", check=False).returncode == 3
    finish(going)
    assert process.wait(30) == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
def test_after_sigterm_the_uploader_writes_what_it_has(lab, going):
    Settings.of({"backend": "wandb", "mode": "offline"}).filled(going).save(going)
    process = start(going)
    lab.wait_for(lambda: sent(going) == 5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert len(lab.history(lab.in_wandb(going))) == 5


def test_a_tracker_that_fails_is_an_error_in_the_state(lab, finished):
    settings = Settings.of({"backend": "trackio"}).filled(finished)
    (finished / "a-file").touch()
    settings.changed(store=str(finished / "a-file")).save(finished)
    assert lab.feed(finished, check=False).returncode == 1
    assert "a-file" in read_state(finished)["error"]
    assert read_state(finished)["done"]


def test_without_settings_the_run_gets_an_id_for_good(lab, finished):
    lab.feed(finished)
    first = read_state(finished)
    lab.feed(finished, "--once")
    second = read_state(finished)
    assert first["id"] == second["id"] == Settings.load(finished).id
    assert (first["sent"], second["sent"]) == (len(lab.rows_of_a_run()), 0)


def test_off_sends_nothing(lab, finished):
    Settings.of({"backend": "off"}).filled(finished).save(finished)
    lab.feed(finished)
    assert read_state(finished) == {}
    assert not (finished.parent.parent / ".trackio").exists()
