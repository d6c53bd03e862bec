"""Waiting for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable

INTERVAL_S = 0.05


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Whether a condition holds within ``timeout`` seconds, polled every ``INTERVAL_S`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(INTERVAL_S)
    return True
