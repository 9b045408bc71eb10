import os

import pytest

from medseg.data.case_jobs import Journal, default_processes, run_each
from medseg.errors import ConfigError, DataError, MedsegError, OutputError, RunError

pytestmark = pytest.mark.slow


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
def test_each_job_yields_its_result_or_its_error(workers):
    found = dict(run_each(double, [1, 2, 3, 4], workers))
    assert isinstance(found[3], MedsegError)
    assert str(found[3]) == "three: it must be left out (got 3)."
    assert {job: result for job, result in found.items() if job != 3} == {1: 2, 2: 4, 4: 8}


def test_workers_are_processes_of_their_own():
    assert {result for _, result in run_each(location, [1, 2], 0)} == {os.getpid()}
    assert os.getpid() not in {result for _, result in run_each(location, [1, 2], 2)}


def test_an_unexpected_error_is_not_hidden():
    for workers in (0, 2):
        with pytest.raises(ZeroDivisionError):
            list(run_each(fail, [1, 2], workers))


def test_a_dead_worker_is_an_error():
    with pytest.raises(RunError, match="die: a worker process died"):
        list(run_each(die, [1, 2], 2))


def test_a_negative_number_of_workers_is_refused():
    with pytest.raises(ConfigError, match="the number of processes must be 0 or more"):
        list(run_each(double, [1], -1))
    assert 0 <= default_processes() <= 8


@pytest.fixture
def output(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"1234")
    return tmp_path / "a.bin"


def test_a_finished_case_is_found_in_the_journal(tmp_path, output):
    Journal(tmp_path / "j").add("a", "key", [output], {"voxels": 3})
    assert Journal(tmp_path / "j").get("a", "key", [output]) == {"voxels": 3}


def test_changed_or_missing_files_are_not_finished(tmp_path, output):
    Journal(tmp_path / "j").add("a", "key", [output], [])
    journal = Journal(tmp_path / "j")
    assert journal.get("a", "other", [output]) is None
    assert journal.get("b", "key", [output]) is None
    output.write_bytes(b"1")
    assert journal.get("a", "key", [output]) is None
    output.unlink()
    assert journal.get("a", "key", [output]) is None


def test_a_truncated_journal_line_loses_only_that_case(tmp_path, output):
    journal = Journal(tmp_path / "j")
    journal.add("a", "key", [output], 1)
    with (tmp_path / "j").open("a") as file:
        file.write('\n{"id": "b", "ke')
    Journal(tmp_path / "j").add("c", "key", [output], 3)
    again = Journal(tmp_path / "j")
    assert [again.get(id, "key", [output]) for id in "abc"] == [1, None, 3]


def test_an_unwritable_journal_is_an_error(tmp_path, output):
    with pytest.raises(OutputError, match="the file cannot be written"):
        Journal(tmp_path / "no" / "j").add("a", "key", [output], 1)


def test_a_compacted_journal_does_not_depend_on_the_order_of_its_cases(tmp_path, output):
    for name, ids in (("one", "abc"), ("two", "cabb")):
        journal = Journal(tmp_path / name)
        for id in ids:
            journal.add(id, "key", [output], {"id": id})
        journal.compact("ab")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert Journal(tmp_path / "one").get("b", "key", [output]) == {"id": "b"}
    assert Journal(tmp_path / "one").get("c", "key", [output]) is None
