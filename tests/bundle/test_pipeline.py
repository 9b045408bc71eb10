"""Three threads that overlap, told by events and not by clocks."""

import threading

import pytest

from medseg.bundle.pipeline import overlapped


def test_the_next_is_read_and_the_last_is_written_while_this_one_is_computed():
    read_next, wrote_last = threading.Event(), threading.Event()
    who = {"read": set(), "compute": set(), "write": set()}

    def read(item):
        who["read"].add(threading.get_ident())
        if item == 2:
            read_next.set()
        return item

    def compute(item):
        who["compute"].add(threading.get_ident())
        if item == 1:
            assert read_next.wait(10)  # 2 is read while 1 is computed
        if item == 2:
            assert wrote_last.wait(10)  # 1 is written while 2 is computed
        return item

    def write(item, made):
        who["write"].add(threading.get_ident())
        if item == 1:
            wrote_last.set()
        return made

    assert [one.result for one in overlapped([1, 2, 3], read, compute, write)] == [1, 2, 3]
    assert who["compute"] == {threading.get_ident()}
    assert len(who["read"] | who["compute"] | who["write"]) == 3


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_one_failure_stops_no_other_and_order_is_kept(ahead, stage):
    def fail(name, item):
        if name == stage and item == 2:
            raise ValueError(f"{name} {item}")
        return item

    outcomes = list(
        overlapped(
            [1, 2, 3],
            lambda item: fail("read", item),
            lambda item: fail("compute", item),
            lambda item, made: fail("write", made),
            ahead,
        )
    )
    assert [one.item for one in outcomes] == [1, 2, 3]
    assert [one.result for one in outcomes] == [1, None, 3]
    assert str(outcomes[1].error) == f"{stage} 2"


def test_no_more_than_the_next_is_read():
    begun = []
    computed = []

    def compute(item):
        assert max(begun) <= item + 1
        computed.append(item)
        return item

    def read(item):
        assert item <= len(computed) + 2
        begun.append(item)
        return item

    assert len(list(overlapped(range(1, 20), read, compute, lambda item, made: made))) == 19


@pytest.mark.parametrize("ahead", [True, False])
def test_ctrl_c_finishes_what_is_being_written_and_begins_nothing_new(ahead):
    written, read_items = [], []

    def compute(item):
        if item == 2:
            raise KeyboardInterrupt
        return item

    def read(item):
        read_items.append(item)
        return item

    with pytest.raises(KeyboardInterrupt):
        for _ in overlapped([1, 2, 3, 4, 5], read, compute, lambda item, made: written.append(item)):
            pass
    assert written == [1]
    assert set(read_items) <= {1, 2, 3}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("medseg-read", "medseg-write"))]
