"""A run that was killed anywhere, and went on by the same command, ends where an undisturbed one ends, bit for bit."""

import multiprocessing
import os
import random
import signal
import sys
import time

import pytest
import torch

from medseg.monitoring import History
from medseg.runs.metrics_log import read_rows
from medseg.runs.record import RESUMABLE, read_record, state_of
from medseg.training.checkpoint_files import read
from tests.training import surviving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups to kill"),
]


@pytest.fixture(scope="module")
def start():
    """Start a training as a process: `start(folder, **settings)`; what it needs is imported once for all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.surviving"])
    started = []

    def begin(folder, **settings):
        for name in (surviving.STARTED, surviving.VALIDATING):
            (folder / name).unlink(missing_ok=True)
        process = context.Process(target=surviving.train, args=(str(folder),), kwargs=settings)
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.is_alive():
            process.kill()


def end(process, seconds=120):
    process.join(seconds)
    assert process.exitcode is not None, "it did not end"
    return process.exitcode


def until(true, process, seconds=120):
    stop = time.monotonic() + seconds
    while not true():
        assert process.exitcode is None, f"ended with {process.exitcode}"
        assert time.monotonic() < stop, "waited in vain"
        time.sleep(0.002)


_whole = {}


@pytest.fixture
def whole(start, tmp_path_factory):
    """The folder of an uninterrupted run, one for each kind of settings."""

    def run(**settings):
        key = tuple(sorted(settings.items()))
        if key not in _whole:
            folder = tmp_path_factory.mktemp("whole") / "run"
            assert end(start(folder, **settings)) == 0
            _whole[key] = folder
        return _whole[key]

    return run


def same(one, other, where=""):
    """Whether two checkpoints are equal to the last bit; times of the history aside."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            if (where, key) != ("/stateful", "history"):
                same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            same(a, b, f"{where}/{number}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def ends_alike(folder, reference):
    for name in ("last.pt", "best.pt"):
        same(read(folder / "checkpoints" / name), read(reference / "checkpoints" / name))
    same(*(torch.load(one / "models" / "model.pt", weights_only=True) for one in (folder, reference)))
    assert read_record(folder)["state"] == "finished"
    assert read_record(folder)["best_epoch"] == read_record(reference)["best_epoch"]
    if hasattr(History, "state_dict"):
        assert surviving.losses(folder) == surviving.losses(reference)


def kill_and_go_on(start, folder, kills, seed, **settings):
    """Kill it so many times, each time at a random moment, then let it end; how many kills hit a save."""
    chance, hits = random.Random(seed), 0
    for _ in range(kills):
        process = start(folder, pause=0.02, slow=0.03, **settings)
        until((folder / surviving.STARTED).exists, process)
        time.sleep(chance.uniform(0.0, 0.5))
        os.killpg(process.pid, signal.SIGKILL)
        assert end(process) == -signal.SIGKILL
        for path in folder.rglob("*.pt"):
            if path.name.startswith("."):
                hits += 1
            else:
                read(path)
        assert state_of(read_record(folder)) == "died"
    assert end(start(folder, **settings)) == 0
    return hits


@pytest.mark.parametrize(("workers", "accumulate"), [(0, 3), (2, 1)])
def test_a_run_killed_three_times_ends_as_if_nothing_had_been(start, whole, tmp_path, workers, accumulate):
    reference = whole(epochs=8, accumulate=accumulate)
    kill_and_go_on(start, tmp_path / "run", 3, 7 + workers, epochs=8, workers=workers, accumulate=accumulate)
    ends_alike(tmp_path / "run", reference)


@pytest.mark.long
@pytest.mark.parametrize(("workers", "accumulate"), [(0, 1), (2, 3)])
def test_a_run_killed_twenty_times_ends_as_if_nothing_had_been(start, whole, tmp_path, workers, accumulate):
    reference = whole(epochs=40, accumulate=accumulate)
    hits = kill_and_go_on(start, tmp_path / "run", 20, 3, epochs=40, workers=workers, accumulate=accumulate)
    ends_alike(tmp_path / "run", reference)
    assert hits > 0, "no kill hit a save"


def test_a_trainer_killed_alone_can_be_started_again_at_once(start, whole, tmp_path):
    folder = tmp_path / "run"
    process = start(folder, workers=2, pause=0.02)
    until(lambda: len(surviving.steps(folder)) > 10, process)
    process.kill()
    end(process)
    assert end(start(folder, workers=2)) == 0
    ends_alike(folder, whole())


def stopped(start, folder, when, send, **settings):
    """Start, wait until `when`, send a signal; the exit code, and the seconds that it took."""
    process = start(folder, **settings)
    until(when, process)
    began = time.monotonic()
    send(process)
    return end(process), time.monotonic() - began


def terminate(process):
    os.kill(process.pid, signal.SIGTERM)


def interrupt_all(process):
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.parametrize(("workers", "send"), [(0, terminate), (2, interrupt_all)])
def test_a_signal_in_an_epoch_saves_and_the_run_goes_on_at_the_next_iteration(start, whole, tmp_path, workers, send):
    folder = tmp_path / "run"
    settings = {"workers": workers, "every_minutes": 15}
    code, seconds = stopped(start, folder, lambda: len(surviving.steps(folder)) > 10, send, pause=0.05, **settings)
    assert code == RESUMABLE
    assert seconds < 10
    done = surviving.steps(folder)
    assert read(folder / "checkpoints" / "last.pt")["trainer"]["iteration"] == len(done)
    record = read_record(folder)
    assert (record["state"], record["iteration"]) == ("interrupted", len(done))
    assert record["reason"] == ("SIGINT" if workers else "SIGTERM")
    assert "Resume it with the same command" in (folder / "train.log").read_text()
    assert end(start(folder, **settings)) == 0
    assert surviving.steps(folder) == list(range(1, 4 * surviving.LENGTH + 1))
    ends_alike(folder, whole())
    assert [row["state"] for _, row in read_rows(folder) if row["kind"] == "end"] == ["interrupted", "finished"]


def test_a_signal_in_a_validation_leaves_at_once_and_the_run_goes_on_with_that_validation(start, whole, tmp_path):
    folder = tmp_path / "run"
    wait = folder / surviving.VALIDATING
    code, seconds = stopped(start, folder, wait.exists, terminate, pause_validation=30, every_minutes=0)
    assert code == RESUMABLE
    assert seconds < 10
    assert read(folder / "checkpoints" / "last.pt")["epoch_due"]
    assert end(start(folder)) == 0
    assert surviving.steps(folder) == list(range(1, 4 * surviving.LENGTH + 1))
    ends_alike(folder, whole())


def test_a_last_epoch_that_was_not_validated_is_validated_and_the_run_is_finished(start, whole, tmp_path):
    folder = tmp_path / "run"

    def last():
        return (folder / surviving.VALIDATING).exists() and len(surviving.steps(folder)) == surviving.LENGTH

    settings = {"epochs": 1, "every_minutes": 0}
    assert stopped(start, folder, last, terminate, pause_validation=30, **settings)[0] == RESUMABLE
    assert end(start(folder, **settings)) == 0
    assert surviving.steps(folder) == list(range(1, surviving.LENGTH + 1))
    ends_alike(folder, whole(epochs=1))


def test_a_signal_in_the_first_look_leaves_at_once(start, tmp_path):
    folder = tmp_path / "run"
    wait = folder / surviving.VALIDATING
    code, seconds = stopped(start, folder, wait.exists, terminate, pause_validation=30, look=True)
    assert (code, surviving.steps(folder)) == (RESUMABLE, [])
    assert seconds < 10


def test_a_look_before_the_first_epoch_changes_nothing(start, whole, tmp_path):
    assert end(start(tmp_path / "run", look=True)) == 0
    ends_alike(tmp_path / "run", whole())


def test_a_second_signal_stops_at_once(start, tmp_path):
    folder = tmp_path / "run"

    def twice(process):
        terminate(process)
        until(lambda: "a second signal stops at once" in (folder / "train.log").read_text(), process)
        terminate(process)

    code, seconds = stopped(start, folder, lambda: surviving.steps(folder), twice, pause=60)
    assert code == -signal.SIGTERM
    assert seconds < 10
    assert state_of(read_record(folder)) == "died"
    assert (folder / ".stopping").is_file()  # so that its watch knows that somebody stopped it
