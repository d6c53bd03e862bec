"""Free ports for the services that tests start."""

from __future__ import annotations

import random

from serving.processes import port_is_free
from serving.settings import HOST

# Below the ports that systems give to outgoing connections (Linux from 32768, macOS from 49152), so that none of
# those takes a port between the look and the start.
_RANGE = range(20000, 30000)


def free(count: int) -> list[int]:
    """Different ports on which nothing listens."""
    found: list[int] = []
    for port in random.sample(_RANGE, len(_RANGE)):
        if port_is_free(HOST, port):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"fewer than {count} free ports in {_RANGE}")
