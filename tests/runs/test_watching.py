"""Watching a program that dies, saves, finishes; real processes, a clock of the test's own."""

import json
import logging
import platform
import sys
import time

import filelock
import pytest

from medseg.errors import OutputError, RunError
from medseg.runs import watching
from medseg.runs.detach import detach
from medseg.runs.notifying import Notice
from medseg.runs.stopping import stop
from medseg.runs.watching import Terms, Watch, watch
from medseg.records import append_row, read_record, state_of


class Told(Notice):
    """A notice that keeps what it is told."""

    said: list[tuple[str, str]]

    def tell(self, folder, state, reason):
        self.said.append((state, reason))


class Broken(Notice):
    """A notice that fails in a way that nobody foresaw."""

    def tell(self, folder, state, reason):
        raise TypeError("unforeseen")


@pytest.fixture
def told():
    notice = Told()
    object.__setattr__(notice, "said", [])
    return notice


@pytest.fixture
def watched(trainer, make_run, told, tmp_path):
    """`watched(batches, *options, **terms)`: the watch over a run that has died, and what it restarts it with."""
    made = []

    def make(batches, *options, **terms):
        folder = make_run(state="running", pid=2**22 - 1, pid_started=0.0, host=platform.node())
        assert state_of(read_record(folder)) == "died"
        command = trainer(batches, *options)
        terms = Terms(**{"notice": told, "pauses": (10.0, 30.0), **terms})
        made.append(Watch(folder, terms, lambda run: detach(command, tmp_path / "runs")))
        return made[-1]

    yield make
    for one in made:
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


def test_a_run_that_died_is_started_again_until_it_finishes(watched, told, wait_until):
    one = watched(6, "--die-at", -1)
    until_over(one, wait_until)
    assert one.ended == "finished"
    assert told.said == [
        ("died", "Its process is gone: killed, out of memory, or the machine went down."),
        ("finished", "It has finished."),
    ]
    assert read_record(one.folder)["state"] == "finished"
    said = json.loads((one.folder / "watch.json").read_text())
    assert (said["restarts"], said["state"], said["ended"]) == (1, "finished", True)


def test_one_that_always_dies_at_the_same_place_is_given_up(watched, told, wait_until):
    one = watched(9, "--die-at", 3, restarts=2)
    until_over(one, wait_until)
    assert one.ended == "given_up"
    assert one.restarts == 3  # the first restart came as far as batch 2, the two after it no further
    assert [state for state, _ in told.said] == ["died"] * 4 + ["given_up"]
    assert told.said[-1][1].startswith("It was started 2 times without coming further")


def test_restarts_are_counted_anew_once_it_came_further(watched, told, wait_until):
    one = watched(9, "--die-at", 3, restarts=1)
    until_over(one, wait_until)
    assert one.restarts == 2
    append_row(one.folder, {"kind": "batch", "iteration": 5})
    again = Watch(one.folder, one.terms, one._restart)
    again._furthest, again.attempts, again._first = 2, 1, False
    again.step(0.0)
    assert (again.attempts, again.ended) == (1, "")


def test_pauses_grow_and_nothing_is_started_before_they_are_over(watched, caplog):
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
    assert one.ended == "given_up"


def test_one_that_somebody_stops_is_left_alone(watched, told, wait_until):
    one = watched(10_000)
    wait_until(lambda: one.step(0.0) or (state_of(read_record(one.folder)) == "running" and not one._starting))
    stop(one.folder, now=True)
    assert one.step(1e6)
    assert (one.ended, told.said[-1]) == ("interrupted", ("interrupted", "It was stopped."))


def test_one_that_is_found_dead_a_moment_before_its_stop_is_written_down_is_left_alone(watched, told):
    one = watched(9)
    one._first = False
    assert not one.step(0.0)
    record = read_record(one.folder)
    (one.folder / "run.json").write_text(json.dumps({**record, "state": "interrupted"}))
    assert one.step(1e6)
    assert (one.ended, one.restarts) == ("interrupted", 0)
    assert [state for state, _ in told.said] == ["died", "interrupted"]


def test_one_that_a_second_signal_ended_at_once_was_stopped_and_did_not_die(watched, told):
    one = watched(9)
    one._first = False
    (one.folder / ".stopping").touch()
    assert one.step(0.0)
    assert told.said == [("interrupted", "It was stopped.")]


def test_one_that_was_stopped_before_is_gone_on_with_and_nobody_is_told_that_it_died(
    trainer, make_run, told, tmp_path, wait_until
):
    folder = make_run(state="interrupted")
    one = Watch(folder, Terms(notice=told), lambda run: detach(trainer(3), tmp_path / "runs"))
    until_over(one, wait_until)
    assert told.said == [("finished", "It has finished.")]
    one._child.process.wait()


def test_what_failed_says_why_and_what_cannot_be_started_says_what_it_printed(make_run, told, tmp_path, wait_until):
    folder = make_run(state="failed", error="OutOfMemoryError: 12 GB")
    command = [sys.executable, "-c", "raise SystemExit('no such bundle')"]
    one = Watch(folder, Terms(1, (0.0,), told), lambda run: detach(command, tmp_path / "runs"))
    until_over(one, wait_until)
    assert told.said[0] == ("failed", "OutOfMemoryError: 12 GB")
    assert told.said[1] == ("failed", "It could not be started again (exit code 1). no such bundle")
    assert told.said[2][0] == "given_up"


def test_a_run_that_somebody_else_started_again_is_followed_on(watched, told):
    one = watched(9)
    one._first = False
    assert not one.step(0.0)
    assert one._due == 30.0 or one._due == 10.0
    record = json.loads((one.folder / "run.json").read_text())
    (one.folder / "run.json").write_text(
        json.dumps({**record, "host": "elsewhere", "updated": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    )
    assert not one.step(100.0)
    assert one._due < 0
    assert one.restarts == 0


def test_one_on_a_machine_that_vanished_is_started_again_here(trainer, make_run, told, tmp_path, wait_until):
    folder = make_run(state="running", host="gpu-7", pid=1, updated="2026-01-01T00:00:00+0000")
    one = Watch(folder, Terms(notice=told), lambda run: detach(trainer(3), tmp_path / "runs"))
    until_over(one, wait_until)
    one._child.process.wait()
    assert told.said == [
        ("died", "Nothing was heard of it for 10 min from gpu-7, where it ran."),
        ("finished", "It has finished."),
    ]


def test_a_restart_is_planned_before_anybody_is_told(watched):
    one = watched(9)
    object.__setattr__(one.terms, "notice", Broken())
    one._first = False
    with pytest.raises(TypeError):
        one.step(0.0)
    assert one._due == 10.0


def test_a_record_that_is_damaged_for_a_while_and_a_disk_that_is_full_end_no_watching(
    make_run, told, monkeypatch, caplog
):
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
    assert watch(folders, Terms(notice=told), every=0.01)
    assert (looks.count("a"), looks.count("b")) == (3, 1)
    assert [state for state, _ in told.said] == ["finished", "finished"]
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 2
    assert "must be a JSON object" in said[0]
    assert "No space left" in said[1]


def test_several_runs_are_watched_each_by_one_process(make_run, told):
    folders = [make_run(name, state="finished") for name in ("a", "b")]
    assert watch(folders, Terms(notice=told), every=0.01)
    assert [state for state, _ in told.said] == ["finished", "finished"]
    refused = pytest.raises(RunError, match="run 'b': must be watched by one process")
    with filelock.FileLock(folders[1] / ".watch.lock"), refused:
        watch(folders, Terms())
