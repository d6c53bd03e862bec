"""The simulation agrees with queues whose answers are known."""

from __future__ import annotations

import dataclasses
import math

import pytest

from bench import simulate
from bench.simulate import POLICIES, Fleet, Worker, least

WORKER = Worker(fixed=0.001, each=0.0001, batch=4)


def test_callers_who_wait_for_each_other_share_batches():
    # Four callers fill each batch: four answers in 1.4 ms.
    assert Fleet(WORKER, 1, 1, least).closed_loop(4, 20) == pytest.approx(4 / 0.0014, rel=0.01)
    # Eight wait two batches, at the same rate.
    assert Fleet(WORKER, 1, 1, least).closed_loop(8, 20) == pytest.approx(WORKER.capacity, rel=0.01)


def test_without_batches_the_mean_wait_is_that_of_an_m_d_1_queue():
    worker = Worker(fixed=0.001, each=0.0, batch=1)
    fleet = Fleet(worker, 1, 1, least)
    fleet.open_loop(500, 100_000)
    # Pollaczek and Khinchine: with a utilization u, a constant service time s waits u s / 2 (1 - u).
    assert sum(fleet.latencies) / len(fleet.latencies) == pytest.approx(0.0015, rel=0.03)


def test_an_edge_takes_equal_replicas_in_turn():
    fleet = Fleet(WORKER, 3, 1, least)
    for _ in range(6):
        fleet.send()
    assert [len(queue) for queue in fleet._queues] == [2, 2, 2]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_is_answered_once(policy):
    fleet = Fleet(dataclasses.replace(WORKER, spread=0.3), 5, 2, POLICIES[policy])
    fleet.open_loop(0.8 * 5 * WORKER.capacity, 20_000)
    assert len(fleet.latencies) == 20_000
    assert min(fleet.latencies) > 0


def test_more_knowledge_shortens_the_wait():
    known, own, blind = (
        simulate.latency(WORKER, 10, edges, policy, 0.9)["p99_ms"]
        for edges, policy in ((1, "least"), (10, "least"), (10, "random"))
    )
    assert known < own < blind


def test_after_a_loss_every_request_is_answered():
    row = simulate.loss(Worker(fixed=0.0003, each=0.00001, batch=128), 3)
    assert row["unanswered"] == 0
    assert row["sent_again"] > 0
    assert simulate.CONNECT_S < row["longest_s"] < 2 * simulate.CONNECT_S + 0.1


def test_an_update_of_all_replicas_at_once_exceeds_what_the_new_ones_can_answer():
    worker = Worker(fixed=0.003, each=0.0001, batch=128)
    some, all_ = (simulate.update(worker, at_once) for at_once in (1, simulate.UPDATED))
    assert some["unanswered"] == all_["unanswered"] == 0
    assert some["seconds"] == 10 * all_["seconds"]
    # 70 % of the load is more than two thirds: 15 s of it leave a queue of three quarters of a second.
    assert some["during_ms"] < 2 * some["before_ms"]
    backlog_s = (simulate.UPDATE_LOAD * simulate.COLD_FACTOR - 1) * simulate.COLD_S
    assert all_["during_ms"] == pytest.approx(1000 * backlog_s, rel=0.5)


def test_the_fit_finds_the_worker():
    sweep = []
    true = Worker(fixed=0.0003, each=0.00001, batch=128, spread=0.2)
    for callers in (1, 4, 16, 64):
        fleet = Fleet(true, 1, 1, least)
        rate = fleet.closed_loop(callers, 5)
        p50, p99 = fleet.quantiles_ms()
        sweep.append({"connections": callers, "requests_per_second": rate, "p50_ms": p50, "p99_ms": p99})
    fitted = simulate.fit(sweep, 128)
    assert fitted.fixed == pytest.approx(true.fixed, rel=0.1)
    assert fitted.each == pytest.approx(true.each, rel=0.1)
    assert fitted.spread == true.spread


def test_an_autoscaler_without_limits_saves_most_where_the_demand_is_low():
    slow, quick = (simulate.autoscale(1000, rule) for rule in simulate.DOWN.values())
    assert quick["replica_hours"] < slow["replica_hours"] < slow["fixed_hours"]
    mean = sum(simulate.demand(second, 1000) for second in range(0, simulate.DAY_S, 60)) / (simulate.DAY_S / 60)
    # Never fewer than the demand needs at the target, less the tolerance.
    assert quick["replica_hours"] > 24 * mean / simulate.TARGET * 0.9


def test_the_demand_peaks_at_two_in_the_afternoon():
    assert simulate.demand(14 * 3600, 10) == pytest.approx(10)
    assert simulate.demand(2 * 3600, 10) == pytest.approx(1)
    assert math.isclose(simulate.demand(10.1 * 3600, 10) / simulate.demand(10.1 * 3600 + 700, 10), 1.5, rel_tol=0.2)
