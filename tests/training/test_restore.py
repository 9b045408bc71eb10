import json
import threading

import filelock
import fsspec
import pytest

from medseg.errors import OutputError, RunError
from medseg.runs.find import find_runs, find_unfinished
from medseg.training.restore import fetch, newest_copy, progress


def made(folder, iteration, state="interrupted", weights="weights", started="2026-01-01", **said):
    """The folder of a run."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    record = {"identity": "abc", "state": state, "started": started, "iteration": iteration, **said}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "checkpoints" / "last.pt").write_text(weights)
    return folder


def weights(folder):
    return (folder / "checkpoints" / "last.pt").read_text()


@pytest.fixture
def parent(tmp_path):
    return tmp_path / "runs" / "unet2d"


@pytest.fixture
def location(tmp_path):
    return tmp_path / "elsewhere"


def test_a_run_that_is_gone_on_with_by_name_is_its_newest_copy(parent, location):
    here = made(parent / "one", 1000, weights="of here")
    assert newest_copy(str(location), here) == here
    made(location / "unet2d" / "one", 4000, weights="of there")
    assert newest_copy(str(location), here) == here
    assert weights(here) == "of there"
    (older,) = parent.glob(".older/one-*")
    assert weights(older) == "of here"
    made(here, 5000, weights="of here again")
    assert newest_copy(str(location), here) == here
    assert weights(here) == "of here again"


def test_a_folder_that_is_in_use_is_not_set_aside(parent, location):
    here = made(parent / "one", 1000)
    made(location / "unet2d" / "one", 4000)
    with pytest.raises(RunError, match="it is at iteration 1000, and its backup at 4000"):
        newest_copy(str(location), here, in_use=True)
    assert json.loads((here / "run.json").read_text())["iteration"] == 1000


def test_another_run_of_the_same_name_is_not_written_over(parent, location):
    here = made(parent / "one", 1000)
    made(location / "unet2d" / "one", 10, started="2026-01-02")
    with pytest.raises(RunError, match="it holds another run of this name"):
        newest_copy(str(location), here)


def test_a_run_that_finished_elsewhere_is_not_trained_again_from_what_is_here(parent, location):
    here = made(parent / "one", 1000)
    made(location / "unet2d" / "one", 4000, state="finished", weights="finished")
    assert fetch(str(location), "abc", parent) is None
    assert weights(here) == "finished"


@pytest.mark.parametrize(
    ("record", "wanted"),
    [({}, 0), ({"iteration": None}, 0), ({"iteration": 7}, 7), ({"iteration": 7, "saved_iteration": 4}, 4)],
)
def test_progress_is_what_can_be_gone_on_with(record, wanted):
    assert progress(record) == wanted


def test_the_copy_with_the_newer_checkpoint_is_taken_and_not_the_longer_record(parent, location):
    here = made(parent / "one", 1900, saved_iteration=1000)
    made(location / "unet2d" / "one", 1500, saved_iteration=1500, weights="of there")
    assert fetch(str(location), "abc", parent) == here
    assert weights(here) == "of there"


@pytest.mark.parametrize(("started", "taken"), [("2026-01-03", "late"), ("2025-12-31", "one")])
def test_a_newer_run_that_is_only_here_is_preferred_to_an_older_copy(parent, location, started, taken):
    made(location / "unet2d" / "one", 4000)
    late = made(parent / "late", 10, started=started)
    assert fetch(str(location), "abc", parent) == parent / taken
    assert weights(late) == "weights"


def test_what_a_kill_left_half_brought_here_is_no_run_and_is_removed(parent, location):
    half = made(parent / ".one.0123abcd.partial", 4000, started="2027")
    older = made(parent / ".older" / "one-20260101-000000", 9)
    assert find_unfinished(parent, "abc") is None
    assert find_runs(parent.parent) == find_runs(parent) == []
    with filelock.FileLock(half / ".lock"):  # another process is bringing it here
        assert fetch(str(location), "abc", parent) is None
        assert half.is_dir()
    assert fetch(str(location), "abc", parent) is None
    assert not half.exists()
    assert older.is_dir()


@pytest.mark.parametrize("silent", ["__init__", "exists", "cat_file"])
def test_a_silent_place_does_not_hold_up_the_start(parent, silent):
    over = threading.Event()

    class Silent(fsspec.get_filesystem_class("memory")):
        protocol = "silent"
        cachable = False

    def wait(*_, **__):
        over.wait(60)
        raise OSError("over")

    setattr(Silent, silent, wait)
    fsspec.register_implementation("silent", Silent, clobber=True)
    here = made(parent / "one", 4)
    try:
        if silent != "cat_file":
            with pytest.raises(OutputError, match=r"no answer in 0\.2 s"):
                fetch("silent://x", "abc", parent, timeout=0.2)
        if silent != "exists":
            with pytest.raises(OutputError, match=r"no answer in 0\.2 s"):
                newest_copy("silent://x", here, timeout=0.2)
        assert not over.is_set()
    finally:
        over.set()
