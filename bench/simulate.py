"""The fleet in a simulation: checked against one to three real replicas, then 10 to 1,000 of them.

    python -m bench.simulate       after bench.sweep and bench.fleet; under five minutes

Fitted: a batch's busy time from the rates of ``bench.sweep``; the processor seconds of a busy second from one replica
of ``bench.fleet``. Rates with two and three replicas, and all latencies, are predictions.
"""

from __future__ import annotations

import json
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from bench import reporting
from bench.fleet import MODEL
from bench.simulation import POLICIES, Cost, Fleet
from models import catalog

SIZES = (10, 100, 1000)
# Of the rate of one replica in a closed loop, which is its limit.
LOAD = 0.7
# Enough periods of the quota for a p99, few enough requests for a minute.
_REQUESTS = 60_000
_MIN_SECONDS = 0.2
# The sample begins here: two periods of the quota.
_WARM_UP_S = 0.2
# An edge keeps this share of a core busy.
_EDGE_UTILIZATION = 0.7
# Two failed health checks, 500 ms apart.
DETECTION_S = 1.0
EVENT_REPLICAS = 20
REPLICAS_PER_NODE = 4

# The day: demand between a tenth of the peak and the peak, highest at 20:00.
PEAK_REPLICAS = 100
_STEP_S = 15
# A new replica is ready after its start, its health check and the pull of its image.
START_S = 30
# Kubernetes' default: scale down only to the highest count wanted in five minutes.
STABILIZATION_S = 300
# An assumption, about the list price of one shared vCPU in a public cloud.
DOLLARS_PER_CPU_HOUR = 0.04


def fit(sweep: list[dict[str, Any]]) -> tuple[float, float]:
    """Fixed and additional busy seconds of a batch, by least squares of the relative error.

    With more callers than one, TorchServe's batch delay does not count, so a cycle of ``c`` callers lasts ``c / rate``.

    Args:
        sweep: results of ``bench.sweep``.
    """
    rows = [row for row in sweep if row["model"] == MODEL and row["form"] == "raw" and row["connections"] > 1]
    sizes = np.array([row["connections"] for row in rows], dtype=float)
    seconds = sizes / np.array([row["requests_per_second"] for row in rows])
    slope, fixed = np.polyfit(sizes, seconds, 1, w=1 / seconds)
    return float(fixed), float(slope)


def calibrate(fixed: float, slope: float, one: dict[str, Any]) -> Cost:
    """The cost of a measured replica; ``one`` is the row of one replica of ``bench.fleet``."""
    serving = catalog.get(MODEL).serving
    callers = one["callers"]
    busy_s = fixed + slope * callers
    cores = one["replica_us_per_request"] / 1e6 * callers / busy_s
    delay_s = serving.max_batch_delay_ms / 1000
    return Cost(fixed, slope, serving.batch_size, delay_s, quota=one["cpus"], cores=cores)


def _check(cost: Cost, measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for row in measured:
        fleet = Fleet(cost, row["replicas"])
        fleet.closed_load(row["callers"])
        fleet.run(20)
        simulated = fleet.figures(1, 20)
        errors = {name: value / row[name] - 1 for name, value in simulated.items()}
        rows.append({"replicas": row["replicas"], "simulated": simulated, "errors": errors})
    return rows


def edges_for(rate: float, us_per_request: float) -> int:
    """Edges of one core each that carry a rate."""
    return max(1, math.ceil(rate * us_per_request / 1e6 / _EDGE_UTILIZATION))


def _cell(cost: Cost, rate: float, edge_us: float, count: int, policy: str) -> dict[str, Any]:
    offered = LOAD * rate * count
    seconds = max(_MIN_SECONDS, min(20, _REQUESTS / offered))
    edges = edges_for(offered, edge_us)
    fleet = Fleet(cost, count, policy, edges)
    fleet.open_load(offered)
    fleet.run(_WARM_UP_S + seconds)
    figures = fleet.figures(_WARM_UP_S, _WARM_UP_S + seconds)
    print(f"{count} replicas, {policy}", file=sys.stderr, flush=True)
    return {"replicas": count, "policy": policy, "edges": edges, "offered": offered, "seconds": seconds, **figures}


def _result(fleet: Fleet, begin: float, middle: float, end: float) -> dict[str, Any]:
    return {
        "answered": len(fleet.latencies),
        "failed": fleet.failed,
        "retried": fleet.retried,
        "p99_before_ms": fleet.figures(begin, middle)["p99_ms"],
        "p99_during_ms": fleet.figures(middle, end)["p99_ms"],
    }


def _node_loss(cost: Cost, rate: float, count: int) -> dict[str, Any]:
    """One node dies at 2 s; the edge takes it off its list after ``DETECTION_S``."""
    fleet = Fleet(cost, count)
    fleet.open_load(LOAD * rate * count)
    fleet.run(2)
    lost = fleet.replicas[:REPLICAS_PER_NODE]
    for replica in lost:
        replica.die()
    fleet.run(2 + DETECTION_S)
    for replica in lost:
        fleet.listed.remove(replica)
    fleet.run(4 + DETECTION_S)
    return _result(fleet, _WARM_UP_S, 2, 4 + DETECTION_S)


def _update(cost: Cost, rate: float, count: int, drain: bool) -> dict[str, Any]:
    """Replace all replicas, a node's worth at a time, the new ones first.

    Args:
        cost, rate, count: of the fleet.
        drain: an old replica reports that it is not ready, and stops after the edge has read that.
    """
    fleet = Fleet(cost, count)
    fleet.open_load(LOAD * rate * count)
    fleet.run(2)
    old = list(fleet.replicas)
    for first in range(0, count, REPLICAS_PER_NODE):
        group = old[first : first + REPLICAS_PER_NODE]
        for _ in group:
            fleet.add()
        if not drain:
            for replica in group:
                replica.die()
        fleet.run(fleet.env.now + DETECTION_S / 2)
        for replica in group:
            fleet.listed.remove(replica)
        fleet.run(fleet.env.now + DETECTION_S / 2)
        if drain:
            for replica in group:
                replica.die()
    return _result(fleet, _WARM_UP_S, 2, fleet.env.now)


def demand(second: float) -> float:
    """Share of the peak at a second of the day."""
    return 0.55 + 0.45 * math.cos(2 * math.pi * (second - 20 * 3600) / 86400)


def autoscale(rate: float) -> dict[str, Any]:
    """A day of an autoscaler that keeps replicas at ``LOAD`` of their rate; a flow, without single requests.

    Args:
        rate: requests a second of one replica.
    """
    steps = 86400 // _STEP_S
    capacity_at_peak = PEAK_REPLICAS * LOAD * rate
    wanted = [math.ceil(PEAK_REPLICAS * demand(step * _STEP_S)) for step in range(steps)]
    keep, delay = STABILIZATION_S // _STEP_S, START_S // _STEP_S
    counts, peak_load, requests = [], 0.0, 0.0
    for step in range(steps):
        # The day repeats: a negative index is the evening before. What is wanted now is ready after the start.
        ready = max(wanted[index] for index in range(step - delay - keep, step - delay + 1))
        counts.append(ready)
        offered = capacity_at_peak * demand(step * _STEP_S)
        peak_load = max(peak_load, offered / (ready * rate))
        requests += offered * _STEP_S
    return {
        "requests": requests,
        "replica_hours": sum(counts) * _STEP_S / 3600,
        "fixed_replica_hours": PEAK_REPLICAS * 24,
        "highest_load": peak_load,
        "counts": counts[:: 3600 // _STEP_S // 4],
    }


def main() -> int:
    """Write ``bench/results/simulate.json``; return the exit code."""
    try:
        sweep, measured = (
            json.loads((reporting.RESULTS / f"{name}.json").read_text())["results"] for name in ("sweep", "fleet")
        )
    except FileNotFoundError as error:
        print(f"error: {error.filename} does not exist; run: make bench bench-fleet", file=sys.stderr)
        return 1
    fixed, slope = fit(sweep)
    cost = calibrate(fixed, slope, measured[0])
    check = _check(cost, measured)
    rate = check[0]["simulated"]["requests_per_second"]
    edge_us = measured[-1]["edge_us_per_request"]
    day = autoscale(rate)
    dollars = DOLLARS_PER_CPU_HOUR * measured[0]["cpus"] * 1e6 / day["requests"]
    with ProcessPoolExecutor() as pool:
        loss = pool.submit(_node_loss, cost, rate, EVENT_REPLICAS)
        updates = [pool.submit(_update, cost, rate, EVENT_REPLICAS, drain) for drain in (True, False)]
        cells = [
            pool.submit(_cell, cost, rate, edge_us, count, policy) for count in reversed(SIZES) for policy in POLICIES
        ]
    scale = sorted((cell.result() for cell in cells), key=lambda row: row["replicas"])
    results = {
        "fit": {"fixed_us": 1e6 * fixed, "per_request_us": 1e6 * slope, "cores": cost.cores},
        "check": check,
        "scale": scale,
        "events": {
            f"a node of {REPLICAS_PER_NODE} lost": loss.result(),
            "rolling update, drained": updates[0].result(),
            "rolling update, not drained": updates[1].result(),
        },
        "day": day,
        "dollars_per_million": {
            "autoscaled": dollars * day["replica_hours"],
            "fixed": dollars * day["fixed_replica_hours"],
        },
    }
    print(f"\n→ {reporting.write('simulate', results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
