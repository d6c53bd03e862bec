"""The composed service, under a name and ports of its own, shared by all tests: leave it as it was.

The image must be there (`make image`), and the archives (`make archive`). Without an engine the tests fail.
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
    """The service, and ready again when the test is over."""
    yield stack

    def unhealthy() -> bool:
        state = stack.inspect()["State"]
        return state["Running"] and state["Health"]["Status"] == "unhealthy"

    # Compose gives up at once on a container that is still unhealthy, though its service has recovered.
    wait_until(lambda: not unhealthy(), TIMEOUT, "the next health check")
    stack.up()
