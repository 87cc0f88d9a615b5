"""Builds overlap with measurement: while one engine is measured, the next is built in another thread."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def one_ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[tuple[Item, Callable[[], Made]]]:
    """Each item, in order, with a call that gives what was made of it or raises what making it raised.

    When an item is given out, the next one is being made; never more than these two are held. A consumer that stops
    early waits for what is being made, and nothing more is begun.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tensorrt-build") as builder:
        waiting: tuple[Item, Future[Made]] | None = None
        for item in items:
            following = (item, builder.submit(make, item))
            if waiting is not None:
                # what the consumer measures is done being built before it is given out, so that one build runs at most
                yield waiting[0], waiting[1].result
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result
