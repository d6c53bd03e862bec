"""What the gateway costs: requests a second and latency through it, beside TorchServe's own port.

    python -m bench.gateway        part of make bench; needs wrk and nginx; takes about two minutes

Both are asked in turn, so that they see the same machine; figures are medians of the rounds.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping

from bench import local, reporting, wrk
from models.datasets import fashion_mnist

MODEL = "fashion_mlp"
ROUNDS = 5
SECONDS = 5
CONNECTIONS = (1, 64)
HEADERS = {"Content-Type": "application/octet-stream"}


def measure(ports: Mapping[str, str], body: bytes, connections: int) -> dict[str, list[wrk.Load]]:
    """What each address answers, in rounds by turns."""
    found: dict[str, list[wrk.Load]] = {name: [] for name in ports}
    for turn in range(ROUNDS + 1):
        for name, url in ports.items():
            print(f"\rc={connections} round {turn}/{ROUNDS} {name:<8}", end="", file=sys.stderr)
            load = wrk.run(f"{url}/predictions/{MODEL}", connections, SECONDS, body, HEADERS)
            # The first round warms up.
            if turn:
                found[name].append(load)
    return found


def main() -> int:
    body = fashion_mnist().test_inputs[0].numpy().tobytes()
    rows, results = [], {}
    try:
        with local.service([MODEL]) as service:
            ports = {"direct": service.inference, "gateway": service.gateway}
            loads = {connections: measure(ports, body, connections) for connections in CONNECTIONS}
    except (wrk.LoadError, local.ServiceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for connections, found in loads.items():
        figures = {
            name: {
                "requests_per_second": statistics.median(load.rate for load in rounds),
                "p50_ms": statistics.median(load.p50 for load in rounds),
                "p99_ms": statistics.median(load.p99 for load in rounds),
                "failed": sum(load.failed for load in rounds),
            }
            for name, rounds in found.items()
        }
        ratio = figures["gateway"]["requests_per_second"] / figures["direct"]["requests_per_second"]
        added = figures["gateway"]["p50_ms"] - figures["direct"]["p50_ms"]
        results[f"c={connections}"] = {**figures, "throughput_ratio": ratio, "added_p50_ms": added}
        for name, figure in figures.items():
            rate, p50, p99 = (figure[key] for key in ("requests_per_second", "p50_ms", "p99_ms"))
            rows.append([name, str(connections), f"{rate:,.0f}", f"{p50:.2f}", f"{p99:.2f}", str(figure["failed"])])
        rows.append(["gateway / direct", str(connections), f"{ratio:.2f}", f"+{added:.2f}", "", ""])
    print(file=sys.stderr)
    print(reporting.table(["way", "connections", "requests/s", "p50 ms", "p99 ms", "failed"], rows))
    print(f"→ {reporting.write('gateway', results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
