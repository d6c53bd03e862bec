"""New versions, bad versions, canaries, scaling and new keys, under load: no call fails."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.fleet import versions
from tests.fleet.swarm.fleet import PATIENCE_S, image
from tests.support import scenes
from tests.support.composing import run, wait_until

CANARY_CALLS = 20_000
# TorchServe's, the front door's and the bridge's.
INNER_PORTS = (7070, 7071, 8002, 8004, 8080, 8081, 8082)
# Prints the open ports of each address that a name has.
SCAN = """
import json, socket, sys
open_ports = {}
for address in sorted({each[4][0] for each in socket.getaddrinfo(sys.argv[1], None, socket.AF_INET)}):
    open_ports[address] = []
    for port in map(int, sys.argv[2:]):
        with socket.socket() as each:
            each.settimeout(2)
            if each.connect_ex((address, port)) == 0:
                open_ports[address].append(port)
print(json.dumps(open_ports))
"""


def _await_only(swarm, version):
    """Wait until no other version answers; the last ones of it do so while they drain."""

    def alone() -> bool:
        result = swarm.callers().load(2).result()
        assert scenes.failed(result) == {}
        return set(result["versions"]) == {version}

    wait_until(alone, 60, f"only {version} answers")


def test_three_replicas_answer_and_only_their_gateways_can_be_reached(swarm):
    # The canary of the test before may still drain.
    _await_only(swarm, "1.0")
    with swarm.callers().unharmed() as result:
        assert len(swarm.ready()) == 3
    assert result.versions.keys() == {"1.0"}
    ports = ["8000", "8001", "8003", *map(str, INNER_PORTS)]
    (edge,) = (task for task in swarm.tasks("edge") if task.node == 1)
    inside = json.loads(swarm.inside(edge, "python3", "-c", SCAN, "tasks.replica", *ports))
    assert list(inside.values()) == [[8000, 8001, 8003]] * 3
    for node in (1, 2, 3):
        command = [*swarm.callers().place, "python3", "-c", SCAN, swarm.lab.address(node), *ports, "8404"]
        outside = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert list(outside.values()) == [[8000, 8001]]


def test_a_replica_refuses_a_rollout(swarm):
    (first, *_) = swarm.ready()
    output = swarm.inside(first, "python", "-m", "serving", "deploy", versions.MODEL, "1.1", check=False)
    assert "deploy is refused in a replica of a fleet" in output


def test_a_new_version_starts_first_and_the_way_back(swarm):
    with swarm.callers().unharmed() as result:
        swarm.apply(FASHION_IMAGE=image("1.1"))
    assert result.versions.keys() == {"1.0", "1.1"}
    with swarm.callers().unharmed() as result:
        swarm.lab.docker(1, "service", "rollback", "--detach", "fashion_replica")
        swarm.state["FASHION_IMAGE"] = image("1.0")
        wait_until(swarm.converged, PATIENCE_S, "1.0 is back")
    assert result.versions.keys() == {"1.0", "1.1"}


@pytest.mark.parametrize("version", [versions.WRONG, versions.NEVER_READY])
def test_a_bad_version_is_rolled_back_by_the_engine(swarm, version):
    with swarm.callers().unharmed() as result:
        swarm.begin(FASHION_IMAGE=image(version))
        wait_until(lambda: swarm.update_state() == "rollback_completed", PATIENCE_S, "rolled back")
        swarm.state["FASHION_IMAGE"] = image("1.0")
        wait_until(swarm.converged, PATIENCE_S, "1.0 is back")
    assert result.versions.keys() == {"1.0"}


def test_a_canary_gets_its_share_and_is_promoted(swarm):
    with swarm.callers().unharmed() as result:
        swarm.apply(FASHION_CANARY_IMAGE=image("1.1"), FASHION_CANARY_REPLICAS="1")
    assert result.versions.keys() == {"1.0", "1.1"}
    counts = {"1.0": 0, "1.1": 0}
    while sum(counts.values()) < CANARY_CALLS:
        measured = swarm.callers().load(10, rate=None).result()
        assert scenes.failed(measured) == {}
        for name in counts:
            counts[name] += measured["versions"][name]
    share = 100 * counts["1.1"] / sum(counts.values())
    print(f"canary: {share:.2f} % of {sum(counts.values())} requests")
    assert 8 < share < 12
    with swarm.callers().unharmed() as result:
        swarm.apply(FASHION_IMAGE=image("1.1"), FASHION_CANARY_REPLICAS="0")
    assert result.versions.keys() == {"1.0", "1.1"}
    _await_only(swarm, "1.1")


def test_a_canary_is_aborted(swarm):
    swarm.apply(FASHION_CANARY_IMAGE=image("1.2"), FASHION_CANARY_REPLICAS="1")
    with swarm.callers().unharmed() as result:
        swarm.apply(FASHION_CANARY_REPLICAS="0")
    assert result.versions.keys() == {"1.0", "1.2"}
    _await_only(swarm, "1.0")


def test_more_replicas_and_fewer(swarm):
    with swarm.callers().unharmed():
        swarm.apply(FASHION_REPLICAS="6")
        swarm.apply(FASHION_REPLICAS="2")


def test_new_keys_while_the_old_ones_are_valid(swarm):
    with swarm.callers(caller="alice").unharmed():
        swarm.apply(FASHION_KEYS_SECRET="keys-alice-bob")
    with swarm.callers(caller="alice").unharmed(), swarm.callers(caller="bob").unharmed():
        pass
    with swarm.callers(caller="bob").unharmed():
        swarm.apply(FASHION_KEYS_SECRET="keys-bob")
    refused = swarm.callers(caller="alice").load(2).result()
    assert refused["calls"].keys() == {"status 403"}


def test_grpc_calls_of_one_connection_reach_every_replica(swarm):
    program = [*swarm.callers().place, sys.executable, "-m", "tests.fleet.grpc_calls"]
    address = f"{swarm.lab.address(1)}:8001"
    command = [*program, address, swarm.authority(), swarm.keys["alice"], versions.MODEL, "90"]
    counts = json.loads(run(*command))
    print(counts)
    assert sum(counts.values()) == 90
    assert len(counts) == 3
    assert min(counts.values()) >= 15
