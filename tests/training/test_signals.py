"""What a signal does to a trainer; whole processes are in test_killed.py."""

import logging
import os
import signal
import threading
from types import SimpleNamespace

import pytest
from ignite.engine import Engine, Events

from medseg.runs.record import RESUMABLE
from medseg.training import Interrupted, Interruption

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="Windows ends a process that is sent a signal"),
]


@pytest.fixture(autouse=True)
def terminal():
    """Once a run was stopped, its process no longer heeds a closing terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class Saves:
    """What a trainer's checkpoints are to an interruption."""

    def __init__(self):
        self.at = []

    def save_iteration(self, engine):
        if engine.state.iteration not in self.at:
            self.at.append(engine.state.iteration)


def run(event, number=signal.SIGTERM, batches=4):
    """Two epochs, a signal at an event; where it stopped, and what was saved."""
    engine = Engine(lambda engine, batch: None)
    engine.state.checkpoints = saves = Saves()
    engine.add_event_handler(event, lambda: os.kill(os.getpid(), number))
    done = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: done.append(engine.state.iteration))
    logging.getLogger("ignite").setLevel(logging.WARNING)
    with pytest.raises(Interrupted) as caught, Interruption(engine):
        engine.run(range(batches), max_epochs=2)
    return done, saves.at, caught.value


def test_a_terminal_that_closes_sends_its_signal_twice_and_is_heard_once():
    engine = Engine(lambda engine, batch: None)
    engine.state.checkpoints = saves = Saves()
    engine.add_event_handler(Events.ITERATION_STARTED(once=2), lambda: os.kill(os.getpid(), signal.SIGHUP))
    engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda: os.kill(os.getpid(), signal.SIGHUP))
    with pytest.raises(Interrupted), Interruption(engine):
        engine.run(range(4), max_epochs=2)
    os.kill(os.getpid(), signal.SIGHUP)  # while the end is being written down
    assert saves.at == [2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_step_that_was_begun_is_finished_and_saved(number):
    done, saved, error = run(Events.ITERATION_STARTED(once=2), number)
    assert (done, saved) == ([1, 2], [2])
    assert error.code == RESUMABLE
    assert str(error) == f"stopped by {number.name}"


def test_while_it_waits_for_data_it_is_saved_and_left():
    done, saved, _ = run(Events.GET_BATCH_STARTED(once=3))  # after the third
    assert (done, saved) == ([1, 2, 3], [3])


@pytest.mark.parametrize(("event", "iterations"), [(Events.STARTED, 0), (Events.EPOCH_COMPLETED(once=1), 4)])
def test_before_the_first_iteration_and_behind_an_epoch_it_is_left_at_once(event, iterations):
    done, saved, _ = run(event)
    assert (len(done), saved) == (iterations, [])


def test_the_handlers_before_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    run(Events.ITERATION_STARTED(once=1))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert logging.getLogger("ignite").level == logging.WARNING


def test_the_first_signal_leaves_a_mark_for_a_second_one_that_ends_the_process(tmp_path):
    mark, seen = tmp_path / ".stopping", []
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(Events.ITERATION_STARTED(once=2), lambda: os.kill(os.getpid(), signal.SIGTERM))
    for event in (Events.ITERATION_STARTED(once=1), Events.ITERATION_COMPLETED(once=2)):
        engine.add_event_handler(event, lambda: seen.append(mark.exists()))
    with pytest.raises(Interrupted), Interruption(engine, tmp_path):
        engine.run(range(4), max_epochs=1)
    assert seen == [False, True]


@pytest.mark.parametrize(
    ("event", "last"), [(Events.ITERATION_STARTED(once=2), 2), (Events.EPOCH_COMPLETED(once=1), 5)]
)
def test_a_file_asks_like_a_signal(tmp_path, monkeypatch, event, last):
    """What Windows has in place of a signal; behind an epoch it is noticed after the next step."""
    monkeypatch.setattr("medseg.training.signals._LOOK", 0.0)
    engine = Engine(lambda engine, batch: None)
    engine.state.checkpoints = saves = Saves()
    (tmp_path / ".stop").touch()  # for an earlier process, which did not live to see it
    engine.add_event_handler(event, lambda: (tmp_path / ".stop").touch())
    with pytest.raises(Interrupted) as caught, Interruption(engine, tmp_path):
        engine.run(range(4), max_epochs=2)
    assert (engine.state.iteration, saves.at) == (last, [last])
    assert (caught.value.code, str(caught.value)) == (RESUMABLE, "stopped by medseg runs stop")
    assert [path.name for path in tmp_path.iterdir()] == [".stopping"]


def test_a_run_without_a_folder_is_asked_by_signals_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".stop").touch()
    engine = Engine(lambda engine, batch: None)
    with Interruption(engine):
        engine.run(range(4), max_epochs=1)
    assert (tmp_path / ".stop").exists()


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption(Engine(lambda engine, batch: None)):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_takes_no_signals():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def inside():
        with Interruption(SimpleNamespace()):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]


def test_an_error_is_not_taken_for_an_interruption():
    with pytest.raises(ZeroDivisionError), Interruption(Engine(lambda engine, batch: None)):
        _ = 1 / 0
