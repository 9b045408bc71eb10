"""Reading, computing and writing of many things at once, each in a thread of its own, never more than one of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")
Made = TypeVar("Made")
Written = TypeVar("Written")


@dataclass(frozen=True)
class Outcome(Generic[Item, Written]):
    """What became of one item.

    Args:
        item: it.
        result: what `write` gave; None after an error.
        error: what went wrong, wherever it did.
    """

    item: Item
    result: Written | None
    error: Exception | None = None


def overlapped(
    items: Iterable[Item],
    read: Callable[[Item], Read],
    compute: Callable[[Read], Made],
    write: Callable[[Item, Made], Written],
    ahead: bool = True,
) -> Iterator[Outcome[Item, Written]]:
    """Read the next item while this one is computed and the last one is written; outcomes come in order.

    `compute` runs in the caller's thread and nowhere else. At most two items are in memory between reading and
    computing, and one between computing and writing. An item that fails stops no other. When the caller stops,
    or Ctrl-C does, what is being written is finished, and nothing new is begun.

    Args:
        items: what to work on.
        read: runs in a thread of its own.
        compute: runs in the caller's.
        write: runs in a third.
        ahead: whether the three overlap; without it they take turns, in less memory.

    >>> [one.result for one in overlapped([1, 2], lambda x: x * 10, lambda x: x + 1, lambda item, x: (item, x))]
    [(1, 11), (2, 21)]
    """
    if not ahead:
        for item in items:
            try:
                yield Outcome(item, write(item, compute(read(item))))
            except Exception as error:
                yield Outcome(item, None, error)
        return
    reader, writer = ThreadPoolExecutor(1, "medseg-read"), ThreadPoolExecutor(1, "medseg-write")
    try:
        rest = iter(items)
        coming = _begin(reader, read, rest)
        writing: tuple[Item, Future[Written]] | None = None
        while coming is not None:
            item, future = coming
            failed: Exception | None = None
            try:
                loaded = future.result()
            except Exception as error:
                failed = error
            coming = _begin(reader, read, rest)
            if failed is None:
                try:
                    made = compute(loaded)
                except Exception as error:
                    failed = error
                del loaded
            if writing is not None:
                yield _end(*writing)
                writing = None
            if failed is not None:
                yield Outcome(item, None, failed)
                continue
            writing = item, writer.submit(write, item, made)
            del made
        if writing is not None:
            yield _end(*writing)
    finally:
        reader.shutdown(wait=True, cancel_futures=True)
        writer.shutdown(wait=True, cancel_futures=True)


def _begin(
    reader: ThreadPoolExecutor, read: Callable[[Item], Read], rest: Iterator[Item]
) -> tuple[Item, Future[Read]] | None:
    for item in rest:
        return item, reader.submit(read, item)
    return None


def _end(item: Item, future: Future[Written]) -> Outcome[Item, Written]:
    try:
        return Outcome(item, future.result())
    except Exception as error:
        return Outcome(item, None, error)
