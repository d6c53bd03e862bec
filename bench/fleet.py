"""One, two and three whole services behind HAProxy, each with the same small CPU quota.

    python -m bench.fleet          needs wrk, haproxy, root for control groups; under three minutes

Callers are in proportion to the replicas: with a fixed number, each replica's batches would shrink. The edge and the
load have no quota. The three services run throughout, and rounds take turns, so that noise meets all three sizes.
"""

from __future__ import annotations

import os
import statistics
import sys
from contextlib import ExitStack
from typing import Any

import psutil

from bench import cpu_limit, edge, local_service, reporting, wrk
from models.datasets import fashion_mnist

MODEL = "fashion_mlp"
REPLICAS = 3
# Three replicas, the edge and the load fit on two cores.
CPUS = 0.25
CALLERS = 32
ROUNDS = 5
SECONDS = 5
HEADERS = {"Content-Type": "application/octet-stream"}


def efficiency(one: float, many: float, count: int) -> float:
    """The rate of ``count`` replicas over ``count`` times that of one."""
    return many / (count * one)


def _summary(rounds: dict[int, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Medians by number of replicas, with the efficiency of each."""
    rows: list[dict[str, Any]] = []
    for count, each in rounds.items():
        row: dict[str, Any] = {
            "replicas": count,
            "callers": CALLERS * count,
            "cpus": CPUS,
            "rates": [round(one["requests_per_second"]) for one in each],
            "failed": sum(one["failed"] for one in each),
        }
        for key in (key for key in each[0] if key != "failed"):
            row[key] = statistics.median(one[key] for one in each)
        rows.append(row)
    for row in rows:
        one, own = rows[0]["requests_per_second"], row["requests_per_second"]
        row["efficiency"] = efficiency(one, own, row["replicas"])
    return rows


def _measure(
    url: str, body: bytes, groups: list[cpu_limit.Group], front: psutil.Process, callers: int
) -> dict[str, float]:
    """One round of load at ``groups``, the replicas behind ``url``."""
    before, edge_before = [each.usage() for each in groups], sum(front.cpu_times()[:2])
    load = wrk.run(url, callers, SECONDS, body, HEADERS)
    spent = [each.usage().since(then) for each, then in zip(groups, before, strict=True)]
    requests = load.rate * SECONDS
    periods = sum(each.periods for each in spent)
    return {
        "requests_per_second": load.rate,
        "p50_ms": load.p50,
        "p99_ms": load.p99,
        "failed": load.failed,
        "throttled_share": sum(each.throttled for each in spent) / max(1, periods),
        "replica_us_per_request": 1e6 * sum(each.cpu_s for each in spent) / requests,
        "edge_us_per_request": 1e6 * (sum(front.cpu_times()[:2]) - edge_before) / requests,
    }


def main() -> int:
    """Write ``bench/results/fleet.json``; return the exit code."""
    body = fashion_mnist().test_inputs[0].numpy().tobytes()
    rounds: dict[int, list[dict[str, float]]] = {}
    try:
        with ExitStack() as stack:
            services = [stack.enter_context(local_service.service([MODEL])) for _ in range(REPLICAS)]
            bases, front = stack.enter_context(edge.edge([service.gateway for service in services]))
            urls = [f"{base}/predictions/{MODEL}" for base in bases]
            wrk.run(urls[-1], CALLERS * REPLICAS, 2 * local_service.WARM_UP_S, body, HEADERS)
            groups = [
                stack.enter_context(
                    cpu_limit.group(f"fashion-bench-{os.getpid()}-{i}", service.processes.values(), CPUS)
                )
                for i, service in enumerate(services)
            ]
            for turn in range(1, ROUNDS + 1):
                for count, url in enumerate(urls, 1):
                    print(f"\rround {turn}/{ROUNDS}: {count} replica(s)   ", end="", file=sys.stderr)
                    wrk.run(url, CALLERS * count, 1, body, HEADERS)
                    round_ = _measure(url, body, groups[:count], front, CALLERS * count)
                    rounds.setdefault(count, []).append(round_)
    except (wrk.LoadError, local_service.ServiceError, edge.EdgeError, cpu_limit.LimitError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    print(file=sys.stderr)
    results = _summary(rounds)
    titles = ["replicas", "requests/s", "efficiency", "p50 ms", "p99 ms", "throttled", "failed"]
    print(
        reporting.table(
            titles,
            [
                [
                    str(row["replicas"]),
                    f"{row['requests_per_second']:,.0f}",
                    f"{row['efficiency']:.2f}",
                    f"{row['p50_ms']:.1f}",
                    f"{row['p99_ms']:.1f}",
                    f"{row['throttled_share']:.0%}",
                    str(row["failed"]),
                ]
                for row in results
            ],
        )
    )
    print(f"→ {reporting.write('fleet', results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
