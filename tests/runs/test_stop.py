"""Stopping from outside, with real processes."""

import os

import pytest

from medseg.errors import RunError
from medseg.runs import stop as stop_module
from medseg.runs.record import read_record, state_of, this_process
from medseg.runs.stop import describe, stop

pytestmark = pytest.mark.slow

graceful = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@graceful
def test_a_run_that_is_asked_to_stop_saves_and_ends(training, tmp_path):
    process = training(10_000)
    folder = tmp_path / "runs" / "unet2d" / "run"
    passed = []
    done = stop(folder, waiting=passed.append)
    assert (done.state, done.killed) == ("interrupted", False)
    assert process.wait() == 75
    assert passed == sorted(passed)
    assert "Saved and stopped in epoch 1, after" in describe(folder, done)
    assert "medseg runs resume run" in describe(folder, done)


def test_a_run_is_asked_by_a_file_where_no_signal_reaches_it(training, tmp_path, monkeypatch):
    monkeypatch.setattr(stop_module, "_BY_FILE", True)
    process = training(10_000)
    folder = tmp_path / "runs" / "unet2d" / "run"
    done = stop(folder)
    assert (done.state, done.killed, process.wait()) == ("interrupted", False, 75)
    assert not (folder / ".stop").exists()


@graceful
def test_a_run_that_saves_for_long_is_left_alone(training, tmp_path):
    process = training(10_000, "--slow-to-save", 2)
    folder = tmp_path / "runs" / "unet2d" / "run"
    done = stop(folder, 0.3)
    assert done.state == "running"
    assert "was left alone: it may still be saving" in describe(folder, done)
    assert process.wait() == 75
    assert read_record(folder)["state"] == "interrupted"


def test_a_run_killed_with_now_counts_as_stopped(training, tmp_path):
    process = training(10_000)
    folder = tmp_path / "runs" / "unet2d" / "run"
    done = stop(folder, now=True)
    assert process.wait() != 75
    assert (done.state, done.killed) == ("interrupted", True)
    assert state_of(read_record(folder)) == "interrupted"
    assert "what came after its last checkpoint is lost" in describe(folder, done)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"state": "finished"}, "it is not running, its state is 'finished'"),
        ({"state": "failed"}, "its state is 'failed'. To resume it: medseg runs resume run"),
        ({"state": "running", **this_process(), "pid_started": 0, "pid_ticks": -9}, "its state is 'died'"),
        ({"state": "running", "host": "gpu-7", "pid": 1}, "it runs on another machine, gpu-7. Stop it there."),
    ],
)
def test_a_run_that_cannot_be_stopped_is_an_error(make_run, record, message):
    folder = make_run(**record)
    with pytest.raises(RunError, match=message):
        stop(folder)
    assert read_record(folder) == {"bundle": "unet2d", **record}
