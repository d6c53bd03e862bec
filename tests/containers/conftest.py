"""The composed service, with its own project name and ports. All tests share it, so a test must restore it.

The tests need a container engine, the image (`make image`), and the archives (`make archive`).
"""

from __future__ import annotations

import pytest

from tests.support import free_ports
from tests.support.composing import TIMEOUT, Stack, wait_until


@pytest.fixture(scope="session")
def stack():
    """The service, ready."""
    stack = Stack("fashion-serve-test", *free_ports.find(2))
    stack.down()
    stack.up()
    yield stack
    stack.down()


@pytest.fixture
def ready(stack):
    """The service; after the test it is made ready again."""
    yield stack

    def unhealthy() -> bool:
        state = stack.inspect()["State"]
        return bool(state["Running"] and state["Health"]["Status"] == "unhealthy")

    # Compose fails at once for an unhealthy container, even if its service has recovered since the last health check.
    wait_until(lambda: not unhealthy(), TIMEOUT, "the next health check")
    stack.up()
