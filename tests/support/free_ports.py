"""Free ports for the services that tests start."""

from __future__ import annotations

import os
import random
import re

from serving import ports
from serving.settings import HOST

# Below the ports of outgoing connections (Linux from 32768, macOS from 49152), so that no connection takes a port
# between the check and the start.
_RANGE = range(20000, 30000)
# Ports returned lately. Their servers may not listen yet, and some tests need a port on which none ever does.
_recent: list[int] = []


def find(count: int) -> list[int]:
    """Distinct free ports, which the last calls have not returned."""
    free: list[int] = []
    share = _share()
    if len(_recent) > len(share) // 2:
        del _recent[: len(share) // 4]
    for port in random.sample(share, len(share)):
        if port not in _recent and ports.is_free(HOST, port):
            free.append(port)
        if len(free) == count:
            _recent.extend(free)
            return free
    raise RuntimeError(f"fewer than {count} free ports in {share}")


def _share() -> range:
    """The part of the range for this worker of pytest-xdist, because the workers search at the same time."""
    worker = re.search(r"\d+$", os.environ.get("PYTEST_XDIST_WORKER", ""))
    if worker is None:
        return _RANGE
    size = len(_RANGE) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    first = _RANGE.start + int(worker[0]) * size
    return range(first, first + size)
