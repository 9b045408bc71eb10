"""Starting, switching and syncing the uploader, with real processes."""

import json
import subprocess
import sys

import pytest

from medseg.errors import ConfigError, RunError
from medseg.monitoring.control import (
    command,
    environment,
    is_uploading,
    settings_of,
    start,
    switch_off,
    switch_on,
    sync,
    wait_until_sent,
)
from medseg.monitoring.settings import Settings, read_state
from medseg.runs.metrics_log import append_row
from medseg.runs.record import this_process

pytestmark = pytest.mark.slow


def test_the_uploader_imports_neither_torch_nor_monai():
    code = (
        "import sys, trackio, wandb, medseg.monitoring.uploader\n"
        "import medseg.monitoring.control, medseg.monitoring.control\n"
        "from medseg.monitoring.backends import trackio_run, wandb_run\n"
        "print([name for name in ('torch', 'monai', 'ignite') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_the_environment_finds_medseg_and_leaves_other_runs_out(monkeypatch, repository):
    monkeypatch.setenv("WANDB_RUN_ID", "another")
    monkeypatch.setenv("WANDB_API_KEY", "k")
    found = environment()
    assert "WANDB_RUN_ID" not in found
    assert found["WANDB_API_KEY"] == "k"
    assert found["PYTHONPATH"].startswith(str(repository))


def test_the_uploader_runs_from_any_folder_and_writes_its_log(lab, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Settings.of({"backend": "trackio"}).filled(finished).save(finished)
    process = start(finished)
    assert process.wait(30) == 0
    assert read_state(finished)["pid"] == process.pid
    assert (finished / "monitor" / "uploader.log").is_file()
    assert command(finished, "--once")[-2:] == [str(finished), "--once"]


@pytest.fixture
def going(lab, tmp_path):
    """A run that goes and was started with monitoring off: this process is its trainer."""
    folder = lab.make_run(tmp_path / "runs" / "unet2d" / "r1", lab.rows_of_a_run()[:4], "running")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, **this_process()}))
    Settings.of({"backend": "off", "dashboard": False}).filled(folder).save(folder)
    return folder


def test_on_sends_earlier_rows_too_and_off_leaves_the_run_alone(lab, going):
    assert switch_on(going).backend == "trackio"
    lab.wait_for(lambda: read_state(going).get("rows") == 4)
    assert is_uploading(going)
    assert switch_off(going)
    assert not is_uploading(going)
    append_row(going, {"kind": "batch", "epoch": 1, "iteration": 9, "loss": 0.1})
    assert len(lab.in_trackio(going)[0]) == 4

    switch_on(going)
    lab.wait_for(lambda: read_state(going).get("rows") == 5)
    assert switch_off(going)
    rows, ids, _ = lab.in_trackio(going)
    assert [step for step, _ in rows] == [0, 1, 2, 3, 4]
    assert ids == {Settings.load(going).id}


def test_another_tracker_takes_over_while_the_run_trains(lab, going):
    switch_on(going, "trackio")
    lab.wait_for(lambda: read_state(going).get("rows") == 4)
    switch_on(going, "wandb")
    lab.wait_for(lambda: read_state(going).get("backend") == "wandb" and read_state(going).get("rows") == 4)
    assert switch_off(going)
    assert len(lab.history(lab.in_wandb(going))) == len(lab.in_trackio(going)[0]) == 4


def test_runs_and_trackers_that_cannot_be_switched_on_are_errors(lab, finished, going):
    with pytest.raises(RunError, match="only a running run is shown live, and this one is finished"):
        switch_on(finished)
    with pytest.raises(ConfigError, match="'off' is no tracker"):
        switch_on(going, "off")
    with pytest.raises(ConfigError, match="Did you mean 'trackio'"):
        switch_on(going, "trackoi")


def test_a_run_that_was_never_monitored_gets_settings_from_its_record(finished):
    assert settings_of(finished).project == "medseg-unet2d"


def test_without_an_uploader_there_is_nothing_to_wait_for(finished):
    assert wait_until_sent(finished, 5)


def test_an_uploader_without_progress_is_not_waited_for(finished):
    state = {"done": False, "updated": 1.0, **this_process()}
    (finished / "monitor").mkdir()
    (finished / "monitor" / "state.json").write_text(json.dumps(state))
    assert is_uploading(finished)
    assert not wait_until_sent(finished, 0.3)


def test_a_run_without_monitoring_is_sent_to_a_tracker_once(lab, finished):
    Settings.of({"backend": "off"}).filled(finished).save(finished)
    rows = len(lab.rows_of_a_run())
    done = sync(finished)
    assert (done.backend, done.rows, done.sent, done.images, done.mode) == ("trackio", rows, rows, 2, "local")
    assert done.where == str(finished.parent.parent / ".trackio")
    assert sync(finished).sent == 0
    append_row(finished, {"kind": "batch", "epoch": 3, "iteration": 9, "loss": 0.1})
    assert sync(finished).sent == 1
    found, ids, _ = lab.in_trackio(finished)
    assert [step for step, _ in found] == list(range(rows + 1))
    assert ids == {done.id} == {Settings.load(finished).id}
    assert Settings.load(finished).backend == "off"


def test_a_run_without_settings_keeps_the_id_of_its_first_sync(lab, finished):
    assert sync(finished).id == sync(finished).id


def test_sync_fills_gaps_in_the_middle(lab, finished):
    sync(finished)
    import sqlite3

    (file,) = (finished.parent.parent / ".trackio").glob("*.db")
    database = sqlite3.connect(file)
    database.execute("DELETE FROM metrics WHERE step IN (3, 4)")
    database.commit()
    database.close()
    assert sync(finished).sent == 2
    assert sorted(step for step, _ in lab.in_trackio(finished)[0]) == list(range(len(lab.rows_of_a_run())))


def test_wandb_needs_its_server_unless_a_file_is_asked_for(lab, finished):
    with pytest.raises(RunError, match=r"Syncing .* failed\. .*no key"):
        sync(finished, "wandb")
    assert lab.offline_runs(finished) == []
    done = sync(finished, "wandb", offline=True)
    assert (done.mode, done.sent) == ("offline", len(lab.rows_of_a_run()))
    assert [step for step, _ in lab.history(lab.in_wandb(finished))] == list(range(done.rows))


def test_runs_and_trackers_that_cannot_be_synced_are_errors(tmp_path, finished):
    with pytest.raises(RunError, match=r"there is no metrics.jsonl to sync"):
        sync(tmp_path)
    with pytest.raises(ConfigError, match="Did you mean 'wandb'"):
        sync(finished, "wandbb")
    with pytest.raises(ConfigError, match="'off' is no tracker"):
        sync(finished, "off")


def test_the_key_goes_to_no_server_that_only_the_run_names(finished, monkeypatch):
    Settings.of({"backend": "wandb", "base_url": "http://127.0.0.1:9"}).filled(finished).save(finished)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match=r"base_url: only the run's own settings name the server"):
        sync(finished)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9/")
    with pytest.raises(RunError, match="cannot be reached"):
        sync(finished)


def test_nothing_goes_to_a_team_that_only_a_run_from_elsewhere_names(finished, monkeypatch):
    Settings.of({"backend": "wandb", "entity": "stranger"}).filled(finished).save(finished)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9/")
    monkeypatch.delenv("WANDB_ENTITY", raising=False)
    with pytest.raises(ConfigError, match=r"entity: the run was not begun on this machine, .* the team stranger\. Set"):
        sync(finished)
    monkeypatch.setenv("WANDB_ENTITY", "stranger")
    with pytest.raises(RunError):  # no server there, or no key
        sync(finished)
