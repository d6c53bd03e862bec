"""gRPC through the edge."""

from __future__ import annotations

import json
import sys

import pytest

from tests.fleet import versions
from tests.support.composing import run

pytestmark = pytest.mark.parametrize("engine", ["swarm"], indirect=True)


def test_calls_of_one_connection_reach_every_replica(fleet):
    program = [*fleet.callers().place, sys.executable, "-m", "tests.fleet.swarm.grpc_calls"]
    address = f"{fleet.lab.address(1)}:8001"
    command = [*program, address, str(fleet.authority()), fleet.keys["alice"], versions.MODEL, "90"]
    counts = json.loads(run(*command))
    print(counts)
    assert sum(counts.values()) == 90
    assert len(counts) == 3
    assert min(counts.values()) >= 15
