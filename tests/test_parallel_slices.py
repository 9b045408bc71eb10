import multiprocessing
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.parallel_slices import parallel_slices


@given(length=st.integers(0, 200), threads=st.integers(1, 9), grain=st.integers(1, 30))
def test_every_part_is_done_once_and_in_order(length, threads, grain):
    parts = parallel_slices(length, lambda part: list(range(length))[part], threads, grain)
    assert [one for part in parts for one in part] == list(range(length))
    assert 1 <= len(parts) <= threads
    assert len(parts) == 1 or min(len(part) for part in parts) >= grain


def test_parts_run_at_the_same_time_and_one_of_them_here():
    meet = threading.Barrier(2, timeout=20)
    names = parallel_slices(2, lambda part: meet.wait() >= 0 and threading.current_thread().name, threads=2)
    assert names[0] == threading.current_thread().name
    assert names[1].startswith("medseg-loops")


def test_an_error_in_any_part_is_the_callers():
    def work(part):
        if part.start:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        parallel_slices(2, work, threads=2)


def _child(queue):
    queue.put(parallel_slices(4, lambda part: part.stop - part.start, threads=2))


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
def test_a_fork_makes_threads_of_its_own():
    parallel_slices(4, lambda part: part, threads=2)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(queue,))
    child.start()
    assert queue.get(timeout=20) == [2, 2]
    child.join()
