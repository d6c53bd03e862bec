"""Fleets of 10 to 1,000 replicas, which are too many to run here: a discrete-event simulation.

    python -m bench.simulate          about six minutes; needs bench/results/sweep.json and fleet.json

    callers ─► edges, each of which knows its own requests only ─► replicas: a queue, and a worker that takes batches

A batch of n requests takes ``fixed + n * each`` seconds, times a factor with a lognormal distribution. The first two
are fitted to the rates of ``bench.sweep``, and the factor's spread to its p99 at 64 callers. Networks take no time, and
an edge has no limit, so real fleets are slower.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from bench import charts, reporting
from bench.render import results
from models import catalog

MODEL = "fashion_mlp"
SIZES = (1, 10, 100, 1000)
# Share of the fleet's highest rate that callers ask for.
LOADS = (0.5, 0.7, 0.9)
# At 90 % of the load, p99 of a few replicas still differs by a third between runs with other random numbers.
REQUESTS = 200_000
REQUESTS_PER_REPLICA = 1000
# Share of the requests that fill the queues first and are not counted.
_WARM_UP = 0.2
# Candidates for the spread of a batch's time.
_SPREADS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)

# A lost node: the edges' time for a connection, and until two checks have failed (deploy/swarm/haproxy.cfg).
CONNECT_S = 1.0
DETECTION_S = 3.0
LOST_SIZES = (3, 10, 30)
# Of each replica: far below its limit, so that seconds can be simulated.
LOST_RATE = 5000.0

# A rolling update of ten replicas that start first: a new one answers more slowly until Java has compiled what it runs
# often (docs/performance.md). Each has a tenth of the fitted worker's speed, so that half a minute can be simulated.
UPDATED, AT_ONCE = 10, (1, 3, 5, 10)
COLD_S, COLD_FACTOR = 15.0, 1.5
UPDATE_LOAD, UPDATE_SLOWER = 0.7, 10
UPDATE_BEFORE_S, UPDATE_AFTER_S = 5.0, 5.0

# An autoscaler as in deploy/kubernetes/base/autoscaler.yaml; the start as measured by tests/fleet.
TARGET = 0.7
MIN_REPLICAS = 3
SYNC_S = 15
START_S = 30
STABILIZATION_S = 300
DAY_S = 24 * 3600

# When it was sent first, through which edge, and the event of its answer.
_Request = tuple[float, int, simpy.Event | None]
Process = Generator[simpy.Event, Any, None]
# Chooses a replica, by the edge's own requests in flight to each: float64 [replicas].
Policy = Callable[[NDArray[np.float64], np.random.Generator], int]


def least(own: NDArray[np.float64], _: np.random.Generator) -> int:
    """The replica with the fewest requests of this edge, HAProxy's ``leastconn``."""
    return int(own.argmin())


def any_of(own: NDArray[np.float64], random: np.random.Generator) -> int:
    """A random replica."""
    return int(random.integers(len(own)))


def better_of_two(own: NDArray[np.float64], random: np.random.Generator) -> int:
    """Of two random replicas the one with fewer requests of this edge.

    Mitzenmacher 2001, "The Power of Two Choices in Randomized Load Balancing".
    """
    one, other = random.integers(len(own), size=2)
    return int(one if own[one] <= own[other] else other)


# The most replicas that an autoscaler removes in a minute, by their number.
DOWN: dict[str, Callable[[int], int]] = {"1": lambda _: 1, "10 %": lambda count: math.ceil(count / 10)}
POLICIES: dict[str, Policy] = {"least": least, "two choices": better_of_two, "random": any_of}


@dataclasses.dataclass(frozen=True)
class Worker:
    """How a replica answers.

    Attributes:
        fixed, each: seconds of a batch, and of each request in it.
        batch: the most requests in a batch.
        spread: standard deviation of the logarithm of the factor on a batch's time.
    """

    fixed: float
    each: float
    batch: int
    spread: float = 0.0

    @property
    def capacity(self) -> float:
        """The highest rate in requests per second."""
        return self.batch / (self.fixed + self.batch * self.each)

    def slower(self, factor: float) -> Worker:
        """The same worker whose batches take ``factor`` times as long."""
        return dataclasses.replace(self, fixed=self.fixed * factor, each=self.each * factor)

    def seconds(self, count: int, random: np.random.Generator) -> float:
        """The time of a batch of ``count`` requests; its mean does not depend on the spread."""
        factor = random.lognormal(-(self.spread**2) / 2, self.spread) if self.spread else 1.0
        return float((self.fixed + count * self.each) * factor)


class Fleet:
    """Replicas and edges in a simulation.

    Args:
        worker: of each replica.
        replicas, edges: their numbers.
        policy: of each edge.
        seed: of the random numbers.
    """

    def __init__(self, worker: Worker, replicas: int, edges: int, policy: Policy, seed: int = 0) -> None:
        self.env = simpy.Environment()
        self.random = np.random.default_rng(seed)
        self.latencies: list[float] = []
        self._worker = worker
        self._policy = policy
        # Of each edge and replica the requests in flight, and a fraction that grows with the last use: an edge takes
        # equals in turn, first in a random order. With the same order all edges would choose the same replica.
        self._own = self.random.random((edges, replicas)) * 1e-9
        self._turn = 0
        self._queues: list[list[_Request]] = [[] for _ in range(replicas)]
        self._waiting: list[simpy.Event | None] = [None] * replicas
        self._lost: int | None = None
        self._cold_until = [0.0] * replicas
        self.sent_again = 0
        for replica in range(replicas):
            self.env.process(self._work(replica))

    def send(self, done: simpy.Event | None = None, sent: float | None = None) -> None:
        """Send a request through a random edge.

        Args:
            done: succeeds with the answer.
            sent: when the request was sent first; ``None``: now.
        """
        edge = int(self.random.integers(len(self._own)))
        replica = self._policy(self._own[edge], self.random)
        self._turn += 1
        own = self._own[edge, replica]
        self._own[edge, replica] = math.floor(own) + 1 + 1e-9 + self._turn * 1e-12
        request = (self.env.now if sent is None else sent, edge, done)
        if replica == self._lost:
            self.env.process(self._send_again([request]))
            return
        self._queues[replica].append(request)
        if idle := self._waiting[replica]:
            self._waiting[replica] = None
            idle.succeed()

    def _work(self, replica: int) -> Process:
        queue = self._queues[replica]
        while True:
            if not queue:
                idle = self._waiting[replica] = self.env.event()
                yield idle
            batch = queue[: self._worker.batch]
            del queue[: self._worker.batch]
            factor = COLD_FACTOR if self.env.now < self._cold_until[replica] else 1.0
            yield self.env.timeout(self._worker.seconds(len(batch), self.random) * factor)
            if replica == self._lost:
                self.env.process(self._send_again([*batch, *queue]))
                return
            for sent, edge, done in batch:
                self.latencies.append(self.env.now - sent)
                self._own[edge, replica] -= 1
                if done:
                    done.succeed()

    def _send_again(self, requests: list[_Request]) -> Process:
        """Requests to the lost replica: without an answer, an edge sends them to another one."""
        yield self.env.timeout(CONNECT_S)
        self.sent_again += len(requests)
        for sent, edge, done in requests:
            self._own[edge, self._lost] -= 1
            self.send(done, sent)

    def lose(self, replica: int, after: float) -> None:
        """Take a replica's power ``after`` seconds; the edges notice ``DETECTION_S`` later."""

        def accident() -> Process:
            yield self.env.timeout(after)
            self._lost = replica
            yield self.env.timeout(DETECTION_S)
            self._own[:, replica] = np.inf

        self.env.process(accident())

    def update(self, replicas: int, after: float) -> None:
        """Replace the first ``replicas`` ``after`` seconds; each new one has started before its old one stops."""

        def replacement() -> Process:
            yield self.env.timeout(after)
            self._cold_until[:replicas] = [self.env.now + COLD_S] * replicas

        self.env.process(replacement())

    def open_loop(self, rate: float, count: int) -> None:
        """Send ``count`` requests at random times, ``rate`` a second, and run until all are answered."""
        gaps = self.random.exponential(1 / rate, count).tolist()

        def callers() -> Process:
            for gap in gaps:
                yield self.env.timeout(gap)
                self.send()

        self.env.process(callers())
        self.env.run()

    def closed_loop(self, callers: int, seconds: float) -> float:
        """Callers who wait for each answer before the next request; the rate in requests per second."""

        def caller() -> Process:
            while True:
                done = self.env.event()
                self.send(done)
                yield done

        for _ in range(callers):
            self.env.process(caller())
        self.env.run(until=seconds * _WARM_UP)
        before = len(self.latencies)
        self.env.run(until=seconds)
        return (len(self.latencies) - before) / (seconds * (1 - _WARM_UP))

    def quantiles_ms(self) -> tuple[float, float]:
        """P50 and p99 after the warm-up, in ms."""
        counted = self.latencies[int(len(self.latencies) * _WARM_UP) :]
        p50, p99 = np.quantile(counted, (0.5, 0.99)) * 1000
        return float(p50), float(p99)


def fit(sweep: Sequence[dict[str, Any]], batch: int) -> Worker:
    """The worker that answers most like a measured one.

    Args:
        sweep: rows of ``bench.sweep`` with ``connections``, ``requests_per_second``, ``p50_ms`` and ``p99_ms``. All
            callers but one wait for the same batch, so a batch of n takes the time in which n callers get an answer
            each. A single one also waits for its batch to fill, so it is left out.
        batch: the most requests in a batch.
    """
    several = [row for row in sweep if row["connections"] > 1]
    counts = [row["connections"] for row in several]
    each, fixed = np.polyfit(counts, [row["connections"] / row["requests_per_second"] for row in several], 1)
    worker = Worker(float(fixed), float(each), batch)
    row = next(row for row in several if row["connections"] == 64)

    def error(spread: float) -> float:
        fleet = Fleet(dataclasses.replace(worker, spread=spread), 1, 1, least)
        fleet.closed_loop(64, 2)
        p50, p99 = fleet.quantiles_ms()
        return abs(p99 / p50 - float(row["p99_ms"] / row["p50_ms"]))

    return dataclasses.replace(worker, spread=min(_SPREADS, key=error))


def check(worker: Worker, measured: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Simulate the replicas of ``bench.fleet``, slowed down until one has the measured rate, and compare the rates."""
    one = measured[0]
    count = one["callers"]
    small = worker.slower(count / one["requests_per_second"] / (worker.fixed + count * worker.each))
    rows = []
    for row in measured:
        rate = Fleet(small, row["replicas"], 1, least).closed_loop(row["callers"], 60)
        rows.append(
            {
                "replicas": row["replicas"],
                "measured": row["requests_per_second"],
                "simulated": rate,
                "error": rate / row["requests_per_second"] - 1,
            }
        )
    return rows


def latency(worker: Worker, replicas: int, edges: int, policy: str, load: float) -> dict[str, Any]:
    """Latencies of a fleet to which callers send ``load`` of its highest rate."""
    fleet = Fleet(worker, replicas, edges, POLICIES[policy])
    rate = load * worker.capacity * replicas
    fleet.open_loop(rate, max(REQUESTS, REQUESTS_PER_REPLICA * replicas))
    p50, p99 = fleet.quantiles_ms()
    row = {"replicas": replicas, "edges": edges, "policy": policy, "load": load}
    return {**row, "requests_per_second": rate, "p50_ms": p50, "p99_ms": p99}


def loss(worker: Worker, replicas: int) -> dict[str, Any]:
    """A node is lost: the requests that are sent again, and the longest that one takes."""
    fleet = Fleet(worker, replicas, replicas, least)
    fleet.lose(0, 1)
    rate = LOST_RATE * replicas
    fleet.open_loop(rate, int(rate * (1 + 2 * DETECTION_S)))
    return {
        "replicas": replicas,
        "sent_again": fleet.sent_again,
        "share": fleet.sent_again / (rate * DETECTION_S),
        "longest_s": max(fleet.latencies),
        "unanswered": int(rate * (1 + 2 * DETECTION_S)) - len(fleet.latencies),
    }


def update(worker: Worker, at_once: int) -> dict[str, Any]:
    """A rolling update: p99 before it, and while ``at_once`` of the replicas are new.

    A start takes longer than a new replica is slow, so that each step of the update is like the first.
    """
    slow = worker.slower(UPDATE_SLOWER)
    fleet = Fleet(slow, UPDATED, 1, least)
    fleet.update(at_once, UPDATE_BEFORE_S)
    rate = UPDATE_LOAD * slow.capacity * UPDATED
    count = int(rate * (UPDATE_BEFORE_S + COLD_S + UPDATE_AFTER_S))
    fleet.open_loop(rate, count)
    # Latencies are in the order of the answers, which come at the callers' rate.
    first, last = int(rate * UPDATE_BEFORE_S), int(rate * (UPDATE_BEFORE_S + COLD_S))
    before, during = fleet.latencies[int(first * _WARM_UP) : first], fleet.latencies[first:last]
    return {
        "replicas": UPDATED,
        "at_once": at_once,
        "seconds": math.ceil(UPDATED / at_once) * START_S,
        "before_ms": float(np.quantile(before, 0.99)) * 1000,
        "during_ms": float(np.quantile(during, 0.99)) * 1000,
        "unanswered": count - len(fleet.latencies),
    }


def demand(second: float, peak: float) -> float:
    """A day's demand in replicas.

    A tenth of the peak at 2 o'clock and all of it at 14, in a cosine; from 10 on, half more for ten minutes.
    """
    hour = second / 3600
    wave = (1 + math.cos((hour - 14) / 12 * math.pi)) / 2
    spike = 1.5 if 10 <= hour < 10 + 1 / 6 else 1.0
    return peak * (0.1 + 0.9 * wave) * spike


def autoscale(peak: int, down_per_minute: Callable[[int], int]) -> dict[str, Any]:
    """A day with Kubernetes' horizontal autoscaler.

    Args:
        peak: the replicas that the peak occupies fully.
        down_per_minute: the most replicas that may go in a minute, by their number.

    Returns:
        replica hours, those of a fleet that always has the peak's replicas at the target, and the minutes in which the
        demand was above what the ready replicas can answer.
    """
    replicas = ready = max(MIN_REPLICAS, math.ceil(demand(0, peak) / TARGET))
    starting: list[tuple[int, int]] = []
    # What the demand needed in the last STABILIZATION_S.
    recent: list[int] = []
    hours = overloaded = 0.0
    removed: list[tuple[int, int]] = []
    for second in range(0, DAY_S, SYNC_S):
        ready += sum(count for at, count in starting if at <= second)
        starting = [(at, count) for at, count in starting if at > second]
        load = demand(second, peak)
        hours += replicas * SYNC_S / 3600
        overloaded += SYNC_S / 60 if load > ready else 0
        # Busy workers cannot show more than all of them.
        ratio = min(load / ready, 1.0) / TARGET
        desired = replicas if abs(ratio - 1) <= 0.1 else max(MIN_REPLICAS, math.ceil(ready * ratio))
        recent = [*recent, desired][-STABILIZATION_S // SYNC_S :]
        if desired > replicas:
            added = min(desired, 2 * replicas) - replicas
            starting.append((second + START_S, added))
            replicas += added
        elif max(recent) < replicas:
            removed = [(at, count) for at, count in removed if at > second - 60]
            allowed = down_per_minute(replicas) - sum(count for _, count in removed)
            leaving = max(0, min(replicas - max(recent), allowed, ready - 1))
            removed.append((second, leaving))
            replicas -= leaving
            ready -= leaving
    fixed = math.ceil(demand(14 * 3600, peak) / TARGET) * 24
    return {"peak": peak, "replica_hours": hours, "fixed_hours": fixed, "overloaded_minutes": overloaded}


def main() -> int:
    """Write ``bench/results/simulation.json``; return the exit code."""
    sweep = [row for row in results("sweep") if row["model"] == MODEL and row["form"] == "raw"]
    worker = fit(sweep, catalog.get(MODEL).serving.batch_size)
    checked = check(worker, results("fleet"))
    rows = []
    for replicas in SIZES:
        # An edge on each node, and for comparison one edge that knows all requests.
        for edges, policies in ((1, ("least",)), *([(replicas, tuple(POLICIES))] if replicas > 1 else [])):
            for policy in policies:
                for load in LOADS:
                    print(f"\r{replicas} replicas, {edges} edges, {policy}, {load}     ", end="", file=sys.stderr)
                    rows.append(latency(worker, replicas, edges, policy, load))
    scaled = [{"down": name, **autoscale(peak, rule)} for peak in SIZES[1:] for name, rule in DOWN.items()]
    print(file=sys.stderr)
    lost = [loss(worker, replicas) for replicas in LOST_SIZES]
    updated = [update(worker, at_once) for at_once in AT_ONCE]
    path = reporting.write(
        "simulation",
        {
            "worker": dataclasses.asdict(worker),
            "check": checked,
            "latency": rows,
            "loss": lost,
            "update": updated,
            "autoscaling": scaled,
        },
    )
    charts.simulation_chart(charts.IMAGES / "simulation.png")
    print(f"→ {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
