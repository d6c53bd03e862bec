"""Cost of a request by the number of workers, the batch size and the number of concurrent callers.

    python -m bench.growth         part of make bench; needs wrk; about six minutes

Services of ``fashion_mlp`` with different settings run together. Each gets load at TorchServe's own port in turn, while
the others are paused by a signal. Besides the rate: processor time per request, of all the machine's processes, wrk and
the kernel's network included.
"""

from __future__ import annotations

import statistics
import sys
from contextlib import ExitStack
from typing import Any

import psutil

from bench import local_service, reporting, wrk
from bench.compare import Server
from models.catalog import Serving
from models.datasets import fashion_mnist

MODEL = "fashion_mlp"
SETTINGS = ((1, 1), (1, 16), (1, 64), (1, 128), (2, 16), (2, 32))
CONNECTIONS = (1, 16, 64, 256)
ROUNDS = 5
SECONDS = 1
HEADERS = {"Content-Type": "application/octet-stream"}


def _busy() -> float:
    """Busy seconds of all cores since the machine started."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait)


def _load(server: Server, connections: int) -> tuple[wrk.Load, float]:
    """One round of load, and its microseconds of processor time per request."""
    before = _busy()
    load = server.load(connections, SECONDS)
    return load, (_busy() - before) / max(load.rate * SECONDS, 1) * 1e6


def main() -> int:
    """Write ``bench/results/growth.json``; return the exit code."""
    body = fashion_mnist().test_inputs[0].numpy().tobytes()
    rounds: dict[tuple[int, int, int], list[tuple[wrk.Load, float]]] = {}
    try:
        with ExitStack() as stack:
            servers: dict[tuple[int, int], Server] = {}
            for workers, batch in SETTINGS:
                serving = Serving(workers=workers, batch_size=batch)
                service = stack.enter_context(local_service.service([MODEL], serving=serving))
                url = f"{service.inference}/predictions/{MODEL}"
                server = servers[workers, batch] = Server(url, HEADERS, body, list(service.processes.values()))
                stack.callback(server.resume)
                server.load(64, local_service.WARM_UP_S)
                server.pause()
            for turn in range(1, ROUNDS + 1):
                for (workers, batch), server in servers.items():
                    print(f"\rround {turn}/{ROUNDS}: {workers} worker(s), batch {batch}   ", end="", file=sys.stderr)
                    server.resume()
                    server.load(64, 1)
                    for connections in CONNECTIONS:
                        rounds.setdefault((workers, batch, connections), []).append(_load(server, connections))
                    server.pause()
    except (wrk.LoadError, local_service.ServiceError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    print(file=sys.stderr)
    results: list[dict[str, Any]] = [
        {
            "workers": workers,
            "batch_size": batch,
            "connections": connections,
            "rates": [round(load.rate) for load, _ in each],
            "requests_per_second": statistics.median(load.rate for load, _ in each),
            "p50_ms": statistics.median(load.p50 for load, _ in each),
            "processor_us_per_request": statistics.median(spent for _, spent in each),
            "failed": sum(load.failed for load, _ in each),
        }
        for (workers, batch, connections), each in rounds.items()
    ]
    print(reporting.table(["workers x batch", *(f"c={each}: requests/s, us" for each in CONNECTIONS)], _rows(results)))
    print(f"→ {reporting.write('growth', results)}")
    return 0


def _rows(results: list[dict[str, Any]]) -> list[list[str]]:
    rows = []
    for workers, batch in SETTINGS:
        own = [each for each in results if (each["workers"], each["batch_size"]) == (workers, batch)]
        cells = [f"{each['requests_per_second']:,.0f}, {each['processor_us_per_request']:.0f}" for each in own]
        rows.append([f"{workers} x {batch}", *cells])
    return rows


if __name__ == "__main__":
    sys.exit(main())
