"""Watching a program that dies, saves, finishes; real processes, a clock of the test's own."""

import json
import logging
import platform
import sys
import time

import filelock
import pytest

from medseg.errors import OutputError, RunError
from medseg.runs import watch as watching
from medseg.runs.detach import detach
from medseg.runs.metrics_log import append_row
from medseg.runs.notify import Notifier
from medseg.runs.record import read_record, state_of
from medseg.runs.stop import stop
from medseg.runs.watch import Watch, WatchPolicy, watch

pytestmark = pytest.mark.slow


class Recorder(Notifier):
    """Keep the messages instead of sending them."""

    messages: list[tuple[str, str]]

    def send(self, folder, state, reason):
        self.messages.append((state, reason))


class Broken(Notifier):
    """Fail in an unforeseen way."""

    def send(self, folder, state, reason):
        raise TypeError("unforeseen")


@pytest.fixture
def recorder():
    recorder = Recorder()
    object.__setattr__(recorder, "messages", [])
    return recorder


@pytest.fixture
def watched(trainer, make_run, recorder, tmp_path):
    """`watched(batches, *options, **terms)`: the watch over a run that has died, and what it restarts it with."""
    watches = []

    def make(batches, *options, **terms):
        folder = make_run(state="running", pid=2**22 - 1, pid_started=0.0, host=platform.node())
        assert state_of(read_record(folder)) == "died"
        command = trainer(batches, *options)
        terms = WatchPolicy(**{"notifier": recorder, "pauses": (10.0, 30.0), **terms})
        watches.append(Watch(folder, terms, lambda run: detach(command, tmp_path / "runs")))
        return watches[-1]

    yield make
    for one in watches:
        if one._child is not None:
            one._child.process.kill()
            one._child.process.wait()


def until_over(one, wait_until):
    """Steps on a clock on which every pause is over."""
    clock = [0.0]

    def over():
        clock[0] += 1000
        return one.step(clock[0])

    wait_until(over)


def test_a_run_that_died_is_restarted_until_it_finishes(watched, recorder, wait_until):
    one = watched(6, "--die-at", -1)
    until_over(one, wait_until)
    assert one.result == "finished"
    assert recorder.messages == [
        ("died", "Its process is gone: killed, out of memory, or the machine went down."),
        ("finished", "It has finished."),
    ]
    assert read_record(one.folder)["state"] == "finished"
    record = json.loads((one.folder / "watch.json").read_text())
    assert (record["restarts"], record["state"], record["ended"]) == (1, "finished", True)


def test_a_run_that_always_dies_at_the_same_iteration_is_given_up(watched, recorder, wait_until):
    one = watched(9, "--die-at", 3, restarts=2)
    until_over(one, wait_until)
    assert one.result == "given_up"
    assert one.restarts == 3  # the first restart came as far as batch 2, the two after it no further
    assert [state for state, _ in recorder.messages] == ["died"] * 4 + ["given_up"]
    assert recorder.messages[-1][1].startswith("It was restarted 2 times without any progress")


def test_progress_resets_the_count_of_restarts(watched, recorder, wait_until):
    one = watched(9, "--die-at", 3, restarts=1)
    until_over(one, wait_until)
    assert one.restarts == 2
    append_row(one.folder, {"kind": "batch", "iteration": 5})
    again = Watch(one.folder, one.policy, one._restart)
    again._progress, again.attempts, again._first_step = 2, 1, False
    again.step(0.0)
    assert (again.attempts, again.result) == (1, "")


def test_pauses_grow_and_no_restart_comes_before_they_are_over(watched, caplog):
    caplog.set_level(logging.INFO)
    one = watched(9, restarts=3)
    started = []
    one._restart = lambda folder: started.append(folder) or (_ for _ in ()).throw(RunError("no", "must", "be"))
    now = 0.0
    assert not one.step(now)
    assert not one.step(now)  # the first time there is nothing to wait for
    for pause in (30.0, 30.0):
        count = len(started)
        assert not one.step(now)
        now += pause - 0.1
        assert not one.step(now)
        assert len(started) == count
        now += 0.1
        assert not one.step(now)
        assert len(started) == count + 1
    assert one.step(now)
    assert one.result == "given_up"


def test_a_run_that_is_stopped_is_left_alone(watched, recorder, wait_until):
    one = watched(10_000)
    wait_until(lambda: one.step(0.0) or (state_of(read_record(one.folder)) == "running" and not one._starting))
    stop(one.folder, now=True)
    assert one.step(1e6)
    assert (one.result, recorder.messages[-1]) == ("interrupted", ("interrupted", "It was stopped."))


def test_a_run_that_seems_dead_just_before_its_stop_is_recorded_is_left_alone(watched, recorder):
    one = watched(9)
    one._first_step = False
    assert not one.step(0.0)
    record = read_record(one.folder)
    (one.folder / "run.json").write_text(json.dumps({**record, "state": "interrupted"}))
    assert one.step(1e6)
    assert (one.result, one.restarts) == ("interrupted", 0)
    assert [state for state, _ in recorder.messages] == ["died", "interrupted"]


def test_a_run_that_a_second_signal_ended_counts_as_stopped(watched, recorder):
    one = watched(9)
    one._first_step = False
    (one.folder / ".stopping").touch()
    assert one.step(0.0)
    assert recorder.messages == [("interrupted", "It was stopped.")]


def test_a_run_stopped_before_the_watching_is_resumed_without_a_message(
    trainer, make_run, recorder, tmp_path, wait_until
):
    folder = make_run(state="interrupted")
    one = Watch(folder, WatchPolicy(notifier=recorder), lambda run: detach(trainer(3), tmp_path / "runs"))
    until_over(one, wait_until)
    assert recorder.messages == [("finished", "It has finished.")]
    one._child.process.wait()


def test_a_failure_and_a_failed_restart_say_why(make_run, recorder, tmp_path, wait_until):
    folder = make_run(state="failed", error="OutOfMemoryError: 12 GB")
    command = [sys.executable, "-c", "raise SystemExit('no such bundle')"]
    one = Watch(folder, WatchPolicy(1, (0.0,), recorder), lambda run: detach(command, tmp_path / "runs"))
    until_over(one, wait_until)
    assert recorder.messages[0] == ("failed", "OutOfMemoryError: 12 GB")
    assert recorder.messages[1] == ("failed", "It could not be restarted (exit code 1). no such bundle")
    assert recorder.messages[2][0] == "given_up"


def test_a_run_that_was_resumed_elsewhere_is_still_watched(watched, recorder):
    one = watched(9)
    one._first_step = False
    assert not one.step(0.0)
    assert one._due == 30.0 or one._due == 10.0
    record = json.loads((one.folder / "run.json").read_text())
    (one.folder / "run.json").write_text(
        json.dumps({**record, "host": "elsewhere", "updated": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    )
    assert not one.step(100.0)
    assert one._due < 0
    assert one.restarts == 0


def test_a_run_of_a_machine_that_vanished_is_restarted_here(trainer, make_run, recorder, tmp_path, wait_until):
    folder = make_run(state="running", host="gpu-7", pid=1, updated="2026-01-01T00:00:00+0000")
    one = Watch(folder, WatchPolicy(notifier=recorder), lambda run: detach(trainer(3), tmp_path / "runs"))
    until_over(one, wait_until)
    one._child.process.wait()
    assert recorder.messages == [
        ("died", "There was no sign of life for 10 min from gpu-7, where it ran."),
        ("finished", "It has finished."),
    ]


def test_a_restart_is_planned_before_the_message_is_sent(watched):
    one = watched(9)
    object.__setattr__(one.policy, "notifier", Broken())
    one._first_step = False
    with pytest.raises(TypeError):
        one.step(0.0)
    assert one._due == 10.0


def test_a_damaged_record_or_a_full_disk_does_not_end_the_watching(make_run, recorder, monkeypatch, caplog):
    folders = [make_run(name, state="finished") for name in ("a", "b")]
    whole, looks = (folders[0] / "run.json").read_text(), []
    (folders[0] / "run.json").write_text("{")
    step, write = Watch.step, watching.write_json

    def mended(self, now):
        looks.append(self.folder.name)
        if looks.count("a") == 3:
            (folders[0] / "run.json").write_text(whole)
        return step(self, now)

    def full(path, content):
        if path.parent.name == "b":
            raise OutputError(path, "must be writable", "No space left on device")
        write(path, content)

    monkeypatch.setattr(Watch, "step", mended)
    monkeypatch.setattr(watching, "write_json", full)
    assert watch(folders, WatchPolicy(notifier=recorder), every=0.01)
    assert (looks.count("a"), looks.count("b")) == (3, 1)
    assert [state for state, _ in recorder.messages] == ["finished", "finished"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert "the file is no JSON object" in warnings[0]
    assert "No space left" in warnings[1]


def test_several_runs_are_watched_each_by_one_process(make_run, recorder):
    folders = [make_run(name, state="finished") for name in ("a", "b")]
    assert watch(folders, WatchPolicy(notifier=recorder), every=0.01)
    assert [state for state, _ in recorder.messages] == ["finished", "finished"]
    refused = pytest.raises(RunError, match="run 'b': another process watches it already")
    with filelock.FileLock(folders[1] / ".watch.lock"), refused:
        watch(folders, WatchPolicy())
