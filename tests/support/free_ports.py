"""Free ports for the services that tests start."""

from __future__ import annotations

import os
import random
import re

from serving import ports
from serving.settings import HOST

# Below the ports that systems give to outgoing connections (Linux from 32768, macOS from 49152), so that none of
# those takes a port between the look and the start.
_RANGE = range(20000, 30000)
# What was given out lately may not listen yet, and some tests need a port on which nothing ever does.
_given: list[int] = []


def find(count: int) -> list[int]:
    """Different ports on which nothing listens, other ones than the calls before gave."""
    found: list[int] = []
    share = _share()
    if len(_given) > len(share) // 2:
        del _given[: len(share) // 4]
    for port in random.sample(share, len(share)):
        if port not in _given and ports.is_free(HOST, port):
            found.append(port)
        if len(found) == count:
            _given.extend(found)
            return found
    raise RuntimeError(f"fewer than {count} free ports in {share}")


def _share() -> range:
    """pytest-xdist's workers look for ports at the same time, so each has a part of the range."""
    worker = re.search(r"\d+$", os.environ.get("PYTEST_XDIST_WORKER", ""))
    if worker is None:
        return _RANGE
    size = len(_RANGE) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    first = _RANGE.start + int(worker[0]) * size
    return range(first, first + size)
