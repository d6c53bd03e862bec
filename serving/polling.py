"""Poll until a condition holds."""

from __future__ import annotations

import time
from collections.abc import Callable

# Adds at most 0.05 s to a start of several seconds.
INTERVAL_S = 0.05


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Poll every ``INTERVAL_S`` seconds; whether the condition holds within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(INTERVAL_S)
    return True
