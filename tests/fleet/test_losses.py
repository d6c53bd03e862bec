"""Nodes, the manager, TorchServe and workers are lost under load."""

from __future__ import annotations

import time

from tests.fleet.load import CONNECTIONS
from tests.fleet.swarm.fleet import PATIENCE_S
from tests.fleet.swarm.lab import NODES
from tests.support import scenes
from tests.support.composing import wait_until

MANAGER = 1
# Until as many replicas are ready again as before; on a busy machine, twice what their first start took.
REPLACED_S = 30.0
MANAGER_AWAY_S = 10.0
# Of the edge, for a replica's answer (deploy/swarm/haproxy.cfg).
EDGE_TIMEOUT_S = 20.0
KILL_FRONTEND = """
import psutil
[frontend] = [each for each in psutil.process_iter() if each.name() == "java"]
frontend.kill()
"""
HANG_WORKERS = """
import psutil
from serving import settings
from serving.torchserve import management
for model in management.of_service(settings.read()).models():
    for worker in model.workers:
        psutil.Process(worker.pid).suspend()
"""
HUNG = """
import psutil
print("hung", sum(each.status() == psutil.STATUS_STOPPED for each in psutil.process_iter()))
"""


def _choose(swarm) -> tuple[int, list[int]]:
    """A node that has a replica and is no manager, and the other nodes. A node that was lost may have no replica."""
    nodes = {task.node for task in swarm.ready()}
    lost = max(nodes)
    assert lost != MANAGER
    return lost, [node for node in range(1, NODES + 1) if node != lost]


def _replaced(swarm, lost: int) -> float:
    """Wait until three replicas are ready on the other nodes; returns the seconds that it took."""

    def three() -> bool:
        return len([task for task in swarm.ready() if task.node != lost]) == 3

    assert not three()
    return wait_until(three, PATIENCE_S, "three replicas")


def _await_recovered(swarm, task, recovered):
    """Wait until a replica has recovered, or the engine has replaced it."""
    wait_until(lambda: task not in swarm.ready() or recovered(), PATIENCE_S, "recovered or replaced")


def _assert_replaced_unharmed(swarm, callers, loss, lost):
    """During a loss no call fails, and soon three replicas are ready again; then the node returns."""
    with callers.unharmed():
        with loss(lost):
            taken = _replaced(swarm, lost)
        swarm.restore()
    print(f"three replicas started in {swarm.start_s:.1f} s, and were three again after {taken:.1f} s")
    assert taken < max(REPLACED_S, 2 * swarm.start_s)


def test_a_killed_node(swarm):
    lost, _ = _choose(swarm)
    _assert_replaced_unharmed(swarm, swarm.callers(), swarm.lab.lost, lost)


def test_a_killed_node_without_retries_loses_what_was_in_flight_there(swarm):
    lost, staying = _choose(swarm)
    load = swarm.callers(staying).load(retries=0)
    load.settle(2)
    killed = load.event("killed")
    with swarm.lab.lost(lost):
        _replaced(swarm, lost)
        load.stop()
        result = load.result()
    failed = scenes.failed(result)
    print(f"of the calls {result['calls']} failed {failed}")
    # No more than were open when the node was killed.
    assert sum(failed.values()) <= CONNECTIONS
    assert scenes.seconds_since(result, killed, list(failed)) < EDGE_TIMEOUT_S


def test_a_node_without_network(swarm):
    # A caller whose own edge is cut off waits for its timeout, so these use the others.
    lost, staying = _choose(swarm)
    _assert_replaced_unharmed(swarm, swarm.callers(staying), swarm.lab.cut_off, lost)


def test_the_manager_is_killed_and_returns(swarm):
    with swarm.callers().unharmed():
        with swarm.lab.lost(MANAGER):
            time.sleep(MANAGER_AWAY_S)
        swarm.restore()


def test_torchserve_is_killed_in_one_replica(swarm):
    (first, *_) = swarm.ready()
    with swarm.callers().unharmed():
        swarm.inside(first, "python", "-c", KILL_FRONTEND)
        status = ("sh", "-c", "python -m serving status >/dev/null && echo recovered")
        _await_recovered(swarm, first, lambda: "recovered" in swarm.inside(first, *status, check=False))
        swarm.restore()


def test_a_worker_hangs_in_one_replica(swarm):
    (first, *_) = swarm.ready()
    with swarm.callers().unharmed():
        swarm.inside(first, "python", "-c", HANG_WORKERS)
        _await_recovered(swarm, first, lambda: "hung 0" in swarm.inside(first, "python", "-c", HUNG, check=False))
        swarm.restore()
