import json
import logging
import multiprocessing
import os
import signal
from types import SimpleNamespace

import pytest

from medseg.errors import OutputError, RunError
from medseg.runs.find import find_unfinished
from medseg.runs.metrics_log import read_rows
from medseg.training.run import TrainingRun, identity, new_folder, versions
from medseg.training.signals import Interrupted

pytestmark = pytest.mark.slow


def make(tmp_path, name="one", who="abc", prepare=None):
    return TrainingRun(tmp_path / "unet2d" / name, who, {"bundle": "unet2d", "name": name}, prepare)


def trainer(run=lambda: None):
    return SimpleNamespace(run=run, state=SimpleNamespace(epoch=2, iteration=8))


def test_nothing_is_written_before_training(tmp_path):
    assert make(tmp_path).record == {}
    assert not list(tmp_path.iterdir())


def test_a_run_that_ends_is_finished(tmp_path):
    run = make(tmp_path, prepare=lambda folder: (folder / "label_map.json").touch())
    states = []
    run.train(trainer(lambda: states.append(run.record["state"])))
    record = run.record
    assert states == ["running"]
    assert (record["state"], record["identity"], record["epoch"], record["iteration"]) == ("finished", "abc", 2, 8)
    assert record["versions"]["torch"]
    assert (run.folder / "label_map.json").is_file()


def test_ctrl_c_leaves_the_state_interrupted_and_is_raised(tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    run = make(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run.train(trainer(interrupt))
    assert run.record["state"] == "interrupted"


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process that is sent a signal")
def test_a_signal_leaves_a_mark_that_resuming_removes(tmp_path):
    run, mark = make(tmp_path), tmp_path / "unet2d" / "one" / ".stopping"
    seen = []
    with pytest.raises(Interrupted):
        run.train(trainer(lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert mark.exists()
    run.train(trainer(lambda: seen.append(mark.exists())))
    assert seen == [False]


def test_an_error_is_in_the_record_and_in_the_log(tmp_path):
    run = make(tmp_path)
    with pytest.raises(ZeroDivisionError):
        run.train(trainer(lambda: 1 / 0))
    assert run.record["state"] == "failed"
    assert run.record["error"] == "ZeroDivisionError: division by zero"
    assert "Traceback" in (run.folder / "train.log").read_text()


def test_what_is_logged_is_in_the_log(tmp_path):
    run = make(tmp_path)
    run.train(trainer(lambda: logging.getLogger("somewhere").warning("a thing to know")))
    assert "a thing to know" in (run.folder / "train.log").read_text()
    logging.getLogger("somewhere").warning("after the end")
    assert "after the end" not in (run.folder / "train.log").read_text()


def test_an_unfinished_run_is_found_by_its_identity_and_never_by_its_date(tmp_path):
    parent = tmp_path / "unet2d"
    for name, who, state in (("1", "abc", "interrupted"), ("2", "abc", "finished"), ("3", "xyz", "failed")):
        make(tmp_path, name, who).train(trainer())
        make(tmp_path, name, who).update(state=state)
    assert find_unfinished(parent, "abc") == parent / "1"
    assert find_unfinished(parent, "xyz") == parent / "3"
    assert find_unfinished(parent, "else") is None
    assert find_unfinished(tmp_path / "nowhere", "abc") is None


def test_of_several_unfinished_the_latest_is_taken(tmp_path):
    for name, started in (("b", "2026-01-01"), ("a", "2026-02-01")):
        make(tmp_path, name).train(trainer())
        make(tmp_path, name).update(state="failed", started=started)
    assert find_unfinished(tmp_path / "unet2d", "abc").name == "a"


def test_a_record_that_cannot_be_read_does_not_hide_the_others(tmp_path, caplog):
    make(tmp_path, "good").train(trainer())
    make(tmp_path, "good").update(state="failed")
    (tmp_path / "unet2d" / "bad").mkdir()
    (tmp_path / "unet2d" / "bad" / "run.json").write_text("{")
    assert find_unfinished(tmp_path / "unet2d", "abc").name == "good"
    assert "cannot be read" in caplog.text


def _hold(folder, held, done):
    run = TrainingRun(folder, "abc", {})

    def wait():
        held.set()
        done.wait(60)

    run.train(trainer(wait))


def test_two_processes_cannot_compute_one_run(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    folder = tmp_path / "unet2d" / "one"
    other = context.Process(target=_hold, args=(folder, held, done))
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(RunError, match=f"process {other.pid} computes this run already"):
            make(tmp_path).train(trainer())
        assert json.loads((folder / "run.json").read_text())["state"] == "running"
    finally:
        done.set()
        other.join(60)
    assert json.loads((folder / "run.json").read_text())["state"] == "finished"


def test_a_killed_process_does_not_lock_its_run(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "unet2d" / "one", held, done))
    other.start()
    assert held.wait(60)
    other.kill()
    other.join(60)
    assert find_unfinished(tmp_path / "unet2d", "abc") == tmp_path / "unet2d" / "one"
    make(tmp_path).train(trainer())
    assert make(tmp_path).record["state"] == "finished"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "unet2d").touch()
    with pytest.raises(OutputError, match="the folder cannot be written"):
        make(tmp_path).train(trainer())


def test_the_identity_goes_by_content():
    assert identity({"a": 1, "b": [2]}, "data") == identity({"b": [2], "a": 1}, "data")
    assert len({identity({"a": 1}, "data"), identity({"a": 2}, "data"), identity({"a": 1}, "other")}) == 3


def test_folders_of_the_same_second_differ(tmp_path):
    first = new_folder(tmp_path, "bs8 lr=3")
    assert first.name.endswith("-bs8-lr-3")
    first.mkdir()
    assert new_folder(tmp_path, "bs8 lr+3") != first


def test_versions_name_what_decides_the_result():
    assert {"python", "torch", "monai", "numpy"} <= set(versions())


def ends(folder):
    return [(row["state"], row["reason"]) for _, row in read_rows(folder) if row["kind"] == "end"]


def test_every_ending_has_its_row(tmp_path):
    def stop():
        raise Interrupted("SIGTERM")

    run = make(tmp_path)
    with pytest.raises(Interrupted):
        run.train(trainer(stop))
    assert (run.record["state"], run.record["reason"]) == ("interrupted", "SIGTERM")
    with pytest.raises(ZeroDivisionError):
        run.train(trainer(lambda: 1 / 0))
    run.train(trainer())
    assert ends(run.folder) == [("interrupted", "SIGTERM"), ("failed", "ZeroDivisionError"), ("finished", None)]
    assert run.record["reason"] is None


def test_a_full_disk_does_not_hide_the_error(tmp_path):
    run = make(tmp_path)

    def fail():
        (run.folder / "run.json").unlink()
        (run.folder / "run.json").mkdir()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run.train(trainer(fail))


def test_half_written_files_of_a_kill_are_removed(tmp_path):
    run = make(tmp_path)
    run.folder.mkdir(parents=True)
    for name in (".run.0a1b.partial.json", ".training_history.0a1b.partial.json", ".other.partial.json"):
        (run.folder / name).touch()
    run.train(trainer())
    assert [path.name for path in run.folder.glob(".*.partial.*")] == [".other.partial.json"]
