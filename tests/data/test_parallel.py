import os

import pytest

from medseg.data.parallel import default_workers, run_each
from medseg.errors import ConfigError, DataError, MedsegError, RunError


def double(number):
    if number == 3:
        raise DataError("three", "must be left out", "3")
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
    assert str(found[3]) == "three: must be left out (3."
    assert {job: result for job, result in found.items() if job != 3} == {1: 2, 2: 4, 4: 8}


def test_workers_are_processes_of_their_own():
    assert {result for _, result in run_each(location, [1, 2], 0)} == {os.getpid()}
    assert os.getpid() not in {result for _, result in run_each(location, [1, 2], 2)}


def test_a_fault_of_our_own_is_not_hidden():
    for workers in (0, 2):
        with pytest.raises(ZeroDivisionError):
            list(run_each(fail, [1, 2], workers))


def test_a_worker_that_dies_is_said():
    with pytest.raises(RunError, match=r"die: needs its worker processes [(]one that died"):
        list(run_each(die, [1, 2], 2))


def test_no_fewer_than_no_workers():
    with pytest.raises(ConfigError, match="must be 0 or more"):
        list(run_each(double, [1], -1))
    assert 0 <= default_workers() <= 8
