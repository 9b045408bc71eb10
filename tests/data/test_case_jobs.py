import os

import pytest

from medseg.data.case_jobs import Journal, default_workers, run_each
from medseg.errors import ConfigError, DataError, MedsegError, OutputError, RunError


def double(number):
    if number == 3:
        raise DataError("three", "it must be left out", "got 3")
    return number * 2


def location(_):
    return os.getpid()


def die(number):
    os._exit(number)


def fail(_):
    raise ZeroDivisionError("a fault of our own")


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_each_job_comes_with_its_result_or_its_error(workers):
    found = dict(run_each(double, [1, 2, 3, 4], workers))
    assert isinstance(found[3], MedsegError)
    assert str(found[3]) == "three: it must be left out (got 3)."
    assert {job: result for job, result in found.items() if job != 3} == {1: 2, 2: 4, 4: 8}


def test_workers_are_processes_of_their_own():
    assert {result for _, result in run_each(location, [1, 2], 0)} == {os.getpid()}
    assert os.getpid() not in {result for _, result in run_each(location, [1, 2], 2)}


def test_a_fault_of_our_own_is_not_hidden():
    for workers in (0, 2):
        with pytest.raises(ZeroDivisionError):
            list(run_each(fail, [1, 2], workers))


def test_a_worker_that_dies_is_said():
    with pytest.raises(RunError, match="die: a worker process died"):
        list(run_each(die, [1, 2], 2))


def test_no_fewer_than_no_workers():
    with pytest.raises(ConfigError, match="the number of processes must be 0 or more"):
        list(run_each(double, [1], -1))
    assert 0 <= default_workers() <= 8


@pytest.fixture
def made(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"1234")
    return tmp_path / "a.bin"


def test_a_finished_case_is_known_again(tmp_path, made):
    Journal(tmp_path / "j").add("a", "key", [made], {"voxels": 3})
    assert Journal(tmp_path / "j").get("a", "key", [made]) == {"voxels": 3}


def test_other_sources_other_files_and_missing_ones_are_not_finished(tmp_path, made):
    Journal(tmp_path / "j").add("a", "key", [made], [])
    journal = Journal(tmp_path / "j")
    assert journal.get("a", "other", [made]) is None
    assert journal.get("b", "key", [made]) is None
    made.write_bytes(b"1")
    assert journal.get("a", "key", [made]) is None
    made.unlink()
    assert journal.get("a", "key", [made]) is None


def test_a_line_that_was_cut_short_costs_that_case_alone(tmp_path, made):
    journal = Journal(tmp_path / "j")
    journal.add("a", "key", [made], 1)
    with (tmp_path / "j").open("a") as file:
        file.write('\n{"id": "b", "ke')
    Journal(tmp_path / "j").add("c", "key", [made], 3)
    again = Journal(tmp_path / "j")
    assert [again.get(id, "key", [made]) for id in "abc"] == [1, None, 3]


def test_a_journal_that_cannot_be_written_says_so(tmp_path, made):
    with pytest.raises(OutputError, match="the file cannot be written"):
        Journal(tmp_path / "no" / "j").add("a", "key", [made], 1)


def test_a_compacted_journal_does_not_depend_on_the_order_of_its_cases(tmp_path, made):
    for name, ids in (("one", "abc"), ("two", "cabb")):
        journal = Journal(tmp_path / name)
        for id in ids:
            journal.add(id, "key", [made], {"id": id})
        journal.compact("ab")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert Journal(tmp_path / "one").get("b", "key", [made]) == {"id": "b"}
    assert Journal(tmp_path / "one").get("c", "key", [made]) is None
