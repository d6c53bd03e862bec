"""New versions, bad versions, canaries, scaling and new keys, under load: no call fails."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest

from tests.fleet import programs, versions
from tests.support import scenes
from tests.support.composing import run, wait_until

PUBLIC_PORTS = (8000, 8001, 8003)
# TorchServe's, the front door's and the bridge's, and the status port of Swarm's edge.
INNER_PORTS = (7070, 7071, 8002, 8004, 8080, 8081, 8082, 8404)


def _await_only(fleet, version):
    """Wait until no other version answers; the last ones of it do so while they drain."""

    def alone() -> bool:
        result = fleet.callers().load(2).result()
        assert scenes.failed(result) == {}
        return set(result["versions"]) == {version}

    wait_until(alone, 60, f"only {version} answers")


@pytest.mark.core
def test_three_replicas_answer_and_only_their_gateways_can_be_reached(fleet):
    # The canary of the test before may still drain.
    _await_only(fleet, "1.0")
    with fleet.callers().unharmed() as result:
        assert len(fleet.ready()) == 3
    assert result.versions.keys() == {"1.0"}
    ports = PUBLIC_PORTS + INNER_PORTS
    assert fleet.open_ports(ports) == [list(PUBLIC_PORTS)] * 3
    callers = fleet.callers()
    nodes = [str(urlsplit(url).hostname) for url in callers.urls]
    outside = json.loads(run(*callers.place, "python3", "-c", programs.SCAN, *nodes, "/", *map(str, ports)))
    assert list(outside.values()) == [list(fleet.published)] * 3


def test_a_replica_refuses_a_rollout(fleet):
    (first, *_) = fleet.ready()
    output = fleet.inside(first, "python", "-m", "serving", "deploy", versions.MODEL, "1.1", check=False)
    assert "deploy is refused in a replica of a fleet" in output


@pytest.mark.core
def test_a_new_version_starts_first_and_the_way_back(fleet):
    with fleet.callers().unharmed() as result:
        fleet.deploy("1.1")
    assert result.versions.keys() == {"1.0", "1.1"}
    with fleet.callers().unharmed() as result:
        fleet.back()
    assert result.versions.keys() == {"1.0", "1.1"}


@pytest.mark.parametrize("version", [pytest.param(versions.WRONG, marks=pytest.mark.core), versions.NEVER_READY])
def test_a_bad_version_gets_no_request(fleet, version):
    with fleet.callers().unharmed() as result:
        fleet.deploy_bad(version)
    assert result.versions.keys() == {"1.0"}


def test_a_canary_gets_its_share_and_is_promoted(fleet):
    with fleet.callers().unharmed():
        fleet.begin_canary("1.1")
    counts = {"1.0": 0, "1.1": 0}
    while sum(counts.values()) < fleet.canary_calls:
        for version, count in fleet.canary_counts().items():
            counts[version] += count
    percent = 100 * counts["1.1"] / sum(counts.values())
    print(f"canary: {percent:.2f} % of {sum(counts.values())} requests")
    assert abs(percent - fleet.canary_percent) < 2
    with fleet.callers().unharmed() as result:
        fleet.promote("1.1")
    assert result.versions.keys() == {"1.0", "1.1"}
    _await_only(fleet, "1.1")


def test_a_canary_is_aborted(fleet):
    fleet.begin_canary("1.2")
    with fleet.callers().unharmed() as result:
        fleet.abort()
    assert result.versions.keys() == {"1.0", "1.2"}
    _await_only(fleet, "1.0")


def test_more_replicas_and_fewer(fleet):
    with fleet.callers().unharmed():
        fleet.scale(6)
        fleet.scale(2)


def test_new_keys_while_the_old_ones_are_valid(fleet):
    with fleet.callers("alice").unharmed():
        fleet.use_keys("alice", "bob")
    with fleet.callers("alice").unharmed(), fleet.callers("bob").unharmed():
        pass
    with fleet.callers("bob").unharmed():
        fleet.use_keys("bob")
    refused = fleet.callers("alice").load(2).result()
    assert refused["calls"].keys() == {"status 403"}
