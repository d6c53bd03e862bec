"""Many pieces of work at once, few at a time, results in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from fashion_client.errors import FashionError

T = TypeVar("T")
R = TypeVar("R")


def in_order(
    work: Callable[[T, threading.Event], R], items: Iterable[T], at_most: int
) -> Generator[R | FashionError, None, None]:
    """Do ``work`` for every item on ``at_most`` threads and give what came out, in the items' order.

    Items are taken as they are needed, at most ``2 * at_most`` ahead of what the caller has read, so that neither a
    long iterable nor its results fill the memory. If the caller stops early, what has not begun is dropped, and the
    event that ``work`` is given is set, which asks it to end soon.

    Yields:
        What ``work`` returned, or the :class:`FashionError` that it raised.
    """
    abandoned = threading.Event()

    def outcome(item: T) -> R | FashionError:
        try:
            return work(item, abandoned)
        except FashionError as error:
            return error

    begun: deque[Future[R | FashionError]] = deque()
    pool = ThreadPoolExecutor(at_most, thread_name_prefix="fashion")
    try:
        for item in items:
            begun.append(pool.submit(outcome, item))
            if len(begun) == 2 * at_most:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        abandoned.set()
        pool.shutdown(cancel_futures=True)
