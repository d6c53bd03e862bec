"""Memory of TorchServe, both image models' workers and their fork server, after 100,000 requests.

    python -m bench.memory         part of make bench; needs wrk and Linux; about a minute

The proportional set size divides shared pages among their processes, so that the sum is the memory really used.
"""

from __future__ import annotations

import sys

import psutil

from bench import local_service, reporting, wrk
from models.datasets import fashion_mnist
from serving.supervisor.parts import FORK_SERVER, FRONTEND

MODELS = ("fashion_mlp", "fashion_convnet")
REQUESTS = 50_000
CONNECTIONS = 64


def pss(process: psutil.Process) -> int:
    """Proportional set size in bytes."""
    return int(process.memory_full_info().pss)


def _measure(service: local_service.Service) -> dict[str, float]:
    frontend = service.processes[FRONTEND]
    workers = frontend.children(recursive=True)
    if FORK_SERVER in service.processes:
        forking = service.processes[FORK_SERVER]
        workers += [forking, *forking.children(recursive=True)]
    megabytes = {"frontend": pss(frontend) / 1e6, "workers": sum(map(pss, workers)) / 1e6}
    return {**megabytes, "all": sum(megabytes.values()), "processes": 1 + len(workers)}


def main() -> int:
    """Write ``bench/results/memory.json``; return the exit code."""
    body = fashion_mnist().test_inputs[0].numpy().tobytes()
    headers = {"Content-Type": "application/octet-stream"}
    results: dict[str, dict[str, float]] = {}
    try:
        with local_service.service(MODELS) as service:
            results["after the start"] = _measure(service)
            for target in (REQUESTS, 2 * REQUESTS):
                answered = dict.fromkeys(MODELS, 0)
                while sum(answered.values()) < REQUESTS:
                    for model in MODELS:
                        done = target - REQUESTS + sum(answered.values())
                        print(f"\r{done:,} of {2 * REQUESTS:,} requests", end="", file=sys.stderr)
                        load = wrk.run(f"{service.inference}/predictions/{model}", CONNECTIONS, 1, body, headers)
                        answered[model] += int(load.rate)
                results[f"after {target:,} requests"] = _measure(service)
    except (wrk.LoadError, local_service.ServiceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(file=sys.stderr)
    first, second = (results[f"after {target:,} requests"]["all"] for target in (REQUESTS, 2 * REQUESTS))
    rows = [
        [name, *(f"{megabytes[key]:,.0f}" for key in ("frontend", "workers", "all"))]
        for name, megabytes in results.items()
    ]
    print(reporting.table(["", "frontend MB", "workers MB", "all MB"], rows))
    print(f"growth from {REQUESTS:,} to {2 * REQUESTS:,} requests: {second / first - 1:+.1%}")
    print(f"→ {reporting.write('memory', {'megabytes': results, 'growth': second / first - 1})}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
