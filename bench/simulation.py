"""A discrete-event simulation of replicas that answer in batches, behind edges that choose a replica.

A replica is one server. It takes what waits, up to a batch, and is then busy for ``fixed_s + per_request_s * size``
times a random factor of mean 1. While it is idle, it waits ``delay_s`` from the first request. With a CPU quota, busy
time spends ``cores`` processor seconds a second, and a replica without quota left stops until its next period.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Generator, Sequence
from typing import Any

import simpy

Process = Generator[simpy.Event, Any, None]
# The kernel's period of CPU quotas.
PERIOD_S = 0.1


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a replica needs.

    Attributes:
        fixed_s: busy seconds of a batch, whatever its size.
        per_request_s: additional busy seconds of each request.
        batch: the most requests in a batch.
        delay_s: the wait for a batch to fill while the replica is idle.
        sigma: the logarithmic standard deviation of a batch's busy time.
        exponential: exponential busy times in place of lognormal ones; the formulas of queueing theory need them.
        quota: processor seconds a second; ``None`` for no limit.
        cores: processor seconds that one busy second spends.
    """

    fixed_s: float
    per_request_s: float
    batch: int = 128
    delay_s: float = 0.001
    sigma: float = 0.2
    exponential: bool = False
    quota: float | None = None
    cores: float = 1.0

    def busy_s(self, size: int) -> float:
        """Mean busy seconds of a batch."""
        return self.fixed_s + self.per_request_s * size

    def rate(self, size: int | None = None) -> float:
        """Requests a second of a replica that is always busy with batches of this size (default: the largest)."""
        size = size or self.batch
        share = 1.0 if self.quota is None else min(1.0, self.quota / self.cores)
        return share * size / self.busy_s(size)


@dataclasses.dataclass
class Request:
    """A request on its way: when it began, and what to call when it has an answer."""

    began: float
    done: Callable[[bool], None]


class Replica:
    """One replica; ``open`` is the number of requests that it holds."""

    def __init__(self, env: simpy.Environment, cost: Cost, rng: random.Random) -> None:
        self._env, self._cost, self._rng = env, cost, rng
        self._queue: list[Request] = []
        self._working: list[Request] = []
        self._wake = env.event()
        # Periods of different groups do not start together.
        self._phase = rng.random() * PERIOD_S
        self._period, self._left = -1, 0.0
        self.alive = True
        env.process(self._work())

    @property
    def open(self) -> int:
        """Requests that wait or are computed."""
        return len(self._queue) + len(self._working)

    def put(self, request: Request) -> None:
        """Take a request. A dead replica fails it at once, like a refused connection."""
        if not self.alive:
            request.done(False)
            return
        self._queue.append(request)
        if not self._wake.triggered:
            self._wake.succeed()

    def die(self) -> None:
        """Fail all open requests, and all later ones."""
        self.alive = False
        lost, self._queue, self._working = self._queue + self._working, [], []
        for request in lost:
            request.done(False)

    def _work(self) -> Process:
        cost = self._cost
        while True:
            if not self._queue:
                self._wake = self._env.event()
                yield self._wake
                if cost.delay_s and len(self._queue) < cost.batch:
                    yield self._env.timeout(cost.delay_s)
            batch = self._working = self._queue[: cost.batch]
            self._queue = self._queue[cost.batch :]
            if not batch:
                continue
            busy = cost.busy_s(len(batch))
            if cost.exponential:
                busy = self._rng.expovariate(1 / busy)
            elif cost.sigma:
                busy *= self._rng.lognormvariate(-(cost.sigma**2) / 2, cost.sigma)
            yield from self._spend(busy)
            if not self.alive:
                continue
            self._working = []
            for request in batch:
                request.done(True)

    def _spend(self, busy: float) -> Process:
        """Be busy for some seconds, and stop between them while the quota is spent."""
        cost = self._cost
        if cost.quota is None or cost.quota >= cost.cores:
            yield self._env.timeout(busy)
            return
        allowance = cost.quota * PERIOD_S / cost.cores
        while busy > 0:
            position = (self._env.now + self._phase) / PERIOD_S
            # A tenth of a nanosecond: a timeout to a period's end must not end in the period before.
            period = math.floor(position + 1e-9)
            if period != self._period:
                self._period, self._left = period, allowance
            until_next = (period + 1 - position) * PERIOD_S
            step = min(busy, self._left, until_next)
            if step > 0:
                yield self._env.timeout(step)
                busy -= step
                self._left -= step
            if busy > 0 and self._left <= 1e-12:
                position = (self._env.now + self._phase) / PERIOD_S
                yield self._env.timeout(max(0.0, (self._period + 1 - position) * PERIOD_S) + 1e-9)


POLICIES = ("random", "round robin", "two choices", "least connections")


class Edge:
    """One edge: it knows only its own connections to each replica, as HAProxy does.

    Args:
        policy: one of ``POLICIES``.
        replicas: the list, which the health checks change.
    """

    def __init__(self, policy: str, replicas: list[Replica], rng: random.Random) -> None:
        if policy not in POLICIES:
            raise ValueError(f"policy must be one of {', '.join(POLICIES)}, got {policy!r}")
        self._policy, self._replicas, self._rng = policy, replicas, rng
        self._open: dict[int, int] = {}
        self._next = 0

    def choose(self, tried: Replica | None) -> Replica:
        """The replica for the next try; another one than ``tried`` if there is one, like HAProxy's redispatch."""
        listed, rng = self._replicas, self._rng
        if tried is not None and len(listed) > 1:
            listed = [replica for replica in listed if replica is not tried]
        if self._policy == "random":
            return rng.choice(listed)
        if self._policy == "two choices":
            first, second = rng.choice(listed), rng.choice(listed)
            return min(first, second, key=self._connections)
        if self._policy == "least connections":
            # Equal replicas take turns: start the search behind the last choice.
            self._next = (self._next + 1) % len(listed)
            best, fewest = listed[self._next], self._connections(listed[self._next])
            for index in range(self._next + 1, self._next + len(listed)):
                if not fewest:
                    break
                replica = listed[index % len(listed)]
                connections = self._connections(replica)
                if connections < fewest:
                    best, fewest = replica, connections
            return best
        self._next = (self._next + 1) % len(listed)
        return listed[self._next]

    def _connections(self, replica: Replica) -> int:
        return self._open.get(id(replica), 0)

    def send(self, replica: Replica, request: Request) -> None:
        """Pass a request on, and count it until its answer."""
        key = id(replica)
        self._open[key] = self._open.get(key, 0) + 1
        done = request.done

        def answered(right: bool) -> None:
            self._open[key] -= 1
            done(right)

        replica.put(Request(request.began, answered))


class Fleet:
    """Replicas, edges, and the results of the requests.

    Args:
        cost: of each replica.
        count: replicas.
        policy: of the edges.
        edges: edges, which do not know of each other.
        seed: of all random numbers.
        retries: on another replica, after a failed try.
    """

    def __init__(
        self, cost: Cost, count: int, policy: str = "least connections", edges: int = 1, seed: int = 1, retries: int = 3
    ) -> None:
        self.env = simpy.Environment()
        self.rng = random.Random(seed)
        self.cost = cost
        self.replicas = [Replica(self.env, cost, self.rng) for _ in range(count)]
        self.listed = list(self.replicas)
        self._edges = [Edge(policy, self.listed, self.rng) for _ in range(edges)]
        self._retries = retries
        self.latencies: list[tuple[float, float]] = []
        self.failed = 0
        self.retried = 0

    def call(self, answered: Callable[[], None] | None = None) -> None:
        """Send one request through one of the edges."""
        began, edge, tries = self.env.now, self.rng.choice(self._edges), 0
        replica: Replica | None = None

        def send() -> None:
            nonlocal replica
            if not self.listed:
                finish(False)
                return
            replica = edge.choose(replica)
            edge.send(replica, Request(began, done))

        def done(right: bool) -> None:
            nonlocal tries
            if not right and tries < self._retries:
                tries += 1
                self.retried += 1
                send()
                return
            finish(right)

        def finish(right: bool) -> None:
            if right:
                self.latencies.append((self.env.now, self.env.now - began))
            else:
                self.failed += 1
            if answered:
                answered()

        send()

    def open_load(self, rate: float) -> None:
        """Requests at random times, ``rate`` a second on average."""

        def source() -> Process:
            while True:
                yield self.env.timeout(self.rng.expovariate(rate))
                self.call()

        self.env.process(source())

    def closed_load(self, callers: int) -> None:
        """Callers that send the next request when they have an answer, like wrk."""

        def again() -> None:
            self.env.process(start())

        def start() -> Process:
            yield self.env.timeout(0)
            self.call(again)

        for _ in range(callers):
            again()

    def add(self) -> Replica:
        """Start one more replica, and list it."""
        replica = Replica(self.env, self.cost, self.rng)
        self.replicas.append(replica)
        self.listed.append(replica)
        return replica

    def run(self, seconds: float) -> None:
        """Simulate up to this time."""
        self.env.run(until=seconds)

    def figures(self, begin: float, end: float) -> dict[str, float]:
        """Requests a second, p50 and p99 in ms, of the answers between two times in seconds."""
        waits = sorted(wait for at, wait in self.latencies if begin <= at < end)
        return {
            "requests_per_second": len(waits) / (end - begin),
            "p50_ms": 1000 * quantile(waits, 0.5),
            "p99_ms": 1000 * quantile(waits, 0.99),
        }


def quantile(ordered: Sequence[float], share: float) -> float:
    """A quantile of sorted values; not a number if there are none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan
