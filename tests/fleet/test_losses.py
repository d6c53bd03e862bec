"""Nodes, what controls the replicas, TorchServe and workers are lost under load."""

from __future__ import annotations

import time

import pytest

from tests.fleet import programs
from tests.fleet.fleet import PATIENCE_S
from tests.fleet.load import CONNECTIONS
from tests.support import scenes
from tests.support.composing import wait_until

# Swarm's only manager; on Kubernetes the control plane is on no node.
MANAGER = 1
# Until as many replicas are ready again as before; on a busy machine, twice what their first start took.
REPLACED_S = 30.0
CONTROL_AWAY_S = 10.0
# More than a call waits for one answer before the gateway or the edge tries again.
ANSWER_TIMEOUT_S = 20.0


def _choose(fleet) -> int:
    """A node that has a replica and is no manager. A node that was lost may have none."""
    lost = max(int(replica.node) for replica in fleet.ready())
    assert lost != MANAGER
    return lost


def _await_replaced(fleet, lost: int) -> float:
    """Wait until three replicas are ready on the other nodes; returns the seconds that it took."""

    def three() -> bool:
        return len([replica for replica in fleet.ready() if replica.node != lost]) == 3

    assert not three()
    return wait_until(three, PATIENCE_S, "three replicas")


def _await_recovered(fleet, replica, recovered):
    """Wait until a replica has recovered, or the engine has replaced it."""

    def gone() -> bool:
        return replica.id not in {each.id for each in fleet.replicas()}

    wait_until(lambda: gone() or recovered(), PATIENCE_S, "recovered or replaced")


def _assert_replaced(fleet, callers, loss, node, tolerated=()):
    """During a loss no other calls fail, and soon three replicas are ready again; then the node returns."""
    with callers.unharmed(tolerated):
        with loss(node):
            taken = _await_replaced(fleet, node)
        fleet.restore()
    print(f"three replicas started in {fleet.start_s:.1f} s, and were three again after {taken:.1f} s")
    assert taken < max(REPLACED_S, 2 * fleet.start_s)


@pytest.mark.core
def test_a_killed_node(fleet):
    _assert_replaced(fleet, fleet.callers(), fleet.lab.lost, _choose(fleet))


def test_a_node_without_network(fleet):
    # A caller at the address of the node itself waits for its own timeout.
    node = _choose(fleet)
    _assert_replaced(fleet, fleet.callers(without=node), fleet.lab.cut_off, node, fleet.lost_with_network)


def test_a_killed_node_without_retries_loses_what_was_in_flight_there(fleet):
    node = _choose(fleet)
    load = fleet.callers(without=node).load(retries=0)
    load.settle(2)
    killed = load.event("killed")
    with fleet.lab.lost(node):
        _await_replaced(fleet, node)
        replaced = load.event("replaced")
        load.settle()
        load.stop()
        result = load.result()
    failed = scenes.failed(result)
    print(f"of the calls {result['calls']} failed {failed}")
    in_flight = [outcome for outcome in failed if outcome not in fleet.lost_until_noticed]
    # No more than were open when the node was killed.
    assert sum(failed[outcome] for outcome in in_flight) <= CONNECTIONS
    assert scenes.seconds_since(result, killed, in_flight) < ANSWER_TIMEOUT_S
    assert scenes.seconds_since(result, replaced, list(failed)) == 0


def test_control_is_killed_and_returns(fleet):
    with fleet.callers().unharmed():
        with fleet.lab.without_control():
            time.sleep(CONTROL_AWAY_S)
        fleet.restore()


def test_torchserve_is_killed_in_one_replica(fleet):
    (first, *_) = fleet.ready()
    with fleet.callers().unharmed():
        fleet.inside(first, "python", "-c", programs.KILL_FRONTEND)
        status = ("sh", "-c", "python -m serving status >/dev/null && echo recovered")
        _await_recovered(fleet, first, lambda: "recovered" in fleet.inside(first, *status, check=False))
        fleet.restore()


def test_a_worker_hangs_in_one_replica(fleet):
    (first, *_) = fleet.ready()
    with fleet.callers().unharmed():
        fleet.inside(first, "python", "-c", programs.HANG_WORKERS)
        count = ("python", "-c", programs.COUNT_HUNG)
        _await_recovered(fleet, first, lambda: "hung 0" in fleet.inside(first, *count, check=False))
        fleet.restore()
