"""The simulation agrees with the formulas of queueing theory, and with a CPU quota's arithmetic."""

from __future__ import annotations

import math

import pytest

from bench.simulation import POLICIES, Cost, Edge, Fleet

EXPONENTIAL = Cost(0.0, 0.01, batch=1, delay_s=0.0, exponential=True)


def _mean_wait(fleet, seconds):
    waits = [wait for at, wait in fleet.latencies if at > seconds / 10]
    return sum(waits) / len(waits)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_replica_without_batches_is_an_m_m_1_queue(load):
    fleet = Fleet(EXPONENTIAL, 1)
    fleet.open_load(load * 100)
    fleet.run(600)
    assert _mean_wait(fleet, 600) == pytest.approx(0.01 / (1 - load), rel=0.1)


def test_random_choice_makes_m_m_1_queues_of_all_replicas():
    fleet = Fleet(EXPONENTIAL, 5, policy="random", edges=2)
    fleet.open_load(0.6 * 500)
    fleet.run(150)
    assert _mean_wait(fleet, 150) == pytest.approx(0.01 / 0.4, rel=0.1)


def test_a_constant_service_time_is_an_m_d_1_queue():
    fleet = Fleet(Cost(0.0, 0.01, batch=1, delay_s=0.0, sigma=0.0), 1)
    fleet.open_load(70)
    fleet.run(500)
    assert _mean_wait(fleet, 500) == pytest.approx(0.01 + 0.01 * 0.7 / (2 * 0.3), rel=0.1)


def _m_m_c_wait(count, load, service):
    offered = load * count
    tail = offered**count / math.factorial(count) / (1 - load)
    waits = tail / (sum(offered**k / math.factorial(k) for k in range(count)) + tail)
    return service + waits * service / (count * (1 - load))


def test_least_connections_lies_between_one_common_queue_and_random_choice():
    fleet = Fleet(EXPONENTIAL, 4)
    fleet.open_load(0.8 * 400)
    fleet.run(150)
    assert _m_m_c_wait(4, 0.8, 0.01) < _mean_wait(fleet, 150) < 0.01 / 0.2 / 1.5


def test_a_full_batch_at_each_turn_gives_the_rate_of_the_cost():
    cost = Cost(0.002, 0.0001, batch=32, delay_s=0.0)
    fleet = Fleet(cost, 1)
    fleet.closed_load(256)
    fleet.run(5)
    assert fleet.figures(1, 5)["requests_per_second"] == pytest.approx(cost.rate(), rel=0.05)


def test_an_idle_replica_waits_the_batch_delay():
    fleet = Fleet(Cost(0.001, 0.0, delay_s=0.004, sigma=0.0), 1)
    fleet.closed_load(1)
    fleet.run(1)
    assert fleet.figures(0, 1)["p50_ms"] == pytest.approx(5)


@pytest.mark.parametrize("cores", [1.0, 1.5])
def test_a_quota_bounds_the_rate_and_lengthens_the_tail_by_its_pauses(cores):
    cost = Cost(0.001, 0.0, batch=1, delay_s=0.0, sigma=0.0, quota=0.25, cores=cores)
    fleet = Fleet(cost, 1)
    fleet.closed_load(1)
    fleet.run(20)
    measured = fleet.figures(0, 20)
    assert measured["requests_per_second"] == pytest.approx(1000 * 0.25 / cores, rel=0.03)
    assert measured["p50_ms"] == pytest.approx(1)
    assert 1000 * 0.1 * (1 - 0.25 / cores) <= 1.1 * max(wait for _, wait in fleet.latencies) * 1000


@pytest.mark.parametrize("policy", POLICIES)
def test_a_dead_replica_costs_retries_and_no_request(policy):
    fleet = Fleet(Cost(0.001, 0.0001), 4, policy)
    fleet.open_load(2000)
    fleet.run(0.5)
    fleet.replicas[0].die()
    fleet.run(0.6)
    fleet.listed.remove(fleet.replicas[0])
    before = fleet.retried
    fleet.run(1.5)
    assert before > 0
    assert fleet.retried == before
    assert fleet.failed == 0


def test_requests_fail_without_replicas():
    fleet = Fleet(Cost(0.001, 0.0), 1)
    fleet.replicas[0].die()
    fleet.call()
    assert fleet.failed == 1
    fleet.listed.clear()
    fleet.call()
    assert fleet.failed == 2


def test_an_unknown_policy_is_an_error():
    with pytest.raises(ValueError, match="policy must be one of"):
        Edge("fastest", [], Fleet(EXPONENTIAL, 1).rng)
