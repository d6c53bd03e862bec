"""The composed service, under a name, a network and ports of its own, shared by all tests: leave it as it was.

The images must be there (`make image`), and the archives (`make archive`). Without an engine the tests fail.
"""

from __future__ import annotations

import pytest
from composing import Stack

from tests import ports


@pytest.fixture(scope="session")
def stack():
    """The service, ready."""
    gateway, grpc = ports.free(2)
    stack = Stack("fashion-serve-test", "172.30.85", gateway, grpc)
    stack.compose("down", "--volumes")
    stack.up()
    yield stack
    stack.compose("down", "--volumes")


@pytest.fixture
def ready(stack):
    """The service, and ready again when the test is over."""
    yield stack
    stack.up()
