"""A lone caller's latency at the gateway, with and without the registration without batches, and other callers' rates.

    python -m bench.single_caller           needs wrk and nginx; about two minutes

TorchServe waits a millisecond for a batch to fill. The gateway passes a request that is alone in flight to a worker
without batches (``serving/torchserve/management.py``).
"""

from __future__ import annotations

import statistics
import sys
from contextlib import ExitStack

from bench import local_service, reporting, wrk
from models.datasets import fashion_mnist
from serving import settings
from serving.errors import ServingError
from serving.gateway import nginx_binary

MODEL = "fashion_mlp"
CONNECTIONS = (1, 4, 16, 64)
ROUNDS = 5
HEADERS = {"Content-Type": "application/octet-stream"}


def main() -> int:
    """Write ``bench/results/lone.json``; return the exit code."""
    body = fashion_mnist().test_inputs[0].numpy().tobytes()
    loads: dict[tuple[str, int], list[wrk.Load]] = {}
    try:
        program = nginx_binary.find(settings.read().nginx)
        with ExitStack() as stack:
            service = stack.enter_context(local_service.service([MODEL]))
            urls = {
                "TorchServe's port": service.inference,
                "gateway, batches only": stack.enter_context(
                    local_service.gateway_of(service, program, batches_only=True)
                ),
                "gateway": stack.enter_context(local_service.gateway_of(service, program)),
            }
            for url in urls.values():
                wrk.run(f"{url}/predictions/{MODEL}", 64, 10, body, HEADERS)
                wrk.run(f"{url}/predictions/{MODEL}", 1, 4, body, HEADERS)
            for turn in range(1, ROUNDS + 1):
                for name, url in urls.items():
                    print(f"\rround {turn}/{ROUNDS}: {name}      ", end="", file=sys.stderr)
                    for connections in CONNECTIONS:
                        load = wrk.run(f"{url}/predictions/{MODEL}", connections, 1, body, HEADERS)
                        loads.setdefault((name, connections), []).append(load)
    except (wrk.LoadError, local_service.ServiceError, ServingError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    print(file=sys.stderr)
    results = [
        {
            "way": name,
            "connections": connections,
            "requests_per_second": statistics.median(load.rate for load in each),
            "p50_ms": statistics.median(load.p50 for load in each),
            "p99_ms": statistics.median(load.p99 for load in each),
            "failed": sum(load.failed for load in each),
        }
        for (name, connections), each in loads.items()
    ]
    rows = [
        [name] + [f"{r['requests_per_second']:,.0f}, {r['p50_ms']:.2f} ms" for r in results if r["way"] == name]
        for name in urls
    ]
    print(reporting.table(["way", *(f"c={each}" for each in CONNECTIONS)], rows))
    print(f"→ {reporting.write('lone', results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
