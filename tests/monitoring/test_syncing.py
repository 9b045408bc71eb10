import pytest

from medseg.errors import ConfigError, RunError
from medseg.monitoring.settings import Settings
from medseg.monitoring.syncing import sync
from medseg.runs.metrics_log import append_row


def test_a_run_without_monitoring_is_brought_to_a_tracker_once(lab, finished):
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


def test_what_is_missing_in_the_middle_is_filled(lab, finished):
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


def test_what_cannot_be_synced_says_so(tmp_path, finished):
    with pytest.raises(RunError, match=r"must hold metrics.jsonl to be synced"):
        sync(tmp_path)
    with pytest.raises(ConfigError, match="Did you mean 'wandb'"):
        sync(finished, "wandbb")
    with pytest.raises(ConfigError, match="must be a tracker to sync with"):
        sync(finished, "off")


def test_the_key_goes_to_no_server_that_only_the_run_names(finished, monkeypatch):
    Settings.of({"backend": "wandb", "base_url": "http://127.0.0.1:9"}).filled(finished).save(finished)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match=r"base_url: must be a server that you named yourself"):
        sync(finished)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9/")
    with pytest.raises(RunError, match="cannot be reached"):
        sync(finished)
