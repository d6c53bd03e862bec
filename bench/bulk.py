"""Bulk: images per second through the service, 1,024 raw images per request, compared with torch alone.

    python -m bench.bulk           part of make bench; needs wrk; about three minutes

Torch alone runs the archive's frozen network on prepared float32 inputs, with the fastest chunk size and number of
threads. It does nothing else: no socket, no decoding, no answer. Both are measured in turn.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import numpy as np
import torch

from bench import local_service, reporting, wrk
from models import artifacts, catalog
from models.datasets import fashion_mnist
from models.training import prepare

MODELS = ("fashion_mlp", "fashion_convnet")
IMAGES = 1024
CHUNKS = (64, 128, 256, 512, 1024)
THREADS = (1, 2)
# Concurrent requests: one is read and answered while another is computed.
CONNECTIONS = (1, 2, 4)
ROUNDS = 5
SECONDS = 3


def alone(network: torch.jit.ScriptModule, inputs: torch.Tensor, chunk: int, threads: int, seconds: float) -> float:
    """Images per second of a frozen network on inputs ``[N, *network_shape]``."""
    torch.set_num_threads(threads)
    pieces = torch.split(inputs, chunk)
    count, begin = 0, time.perf_counter()
    with torch.inference_mode():
        while time.perf_counter() - begin < seconds:
            for piece in pieces:
                network(piece)
            count += len(inputs)
    return count / (time.perf_counter() - begin)


def main() -> int:
    """Write ``bench/results/bulk.json``; return the exit code."""
    images = fashion_mnist().test_inputs[:IMAGES]
    body = np.ascontiguousarray(images.numpy()).tobytes()
    headers = {"Content-Type": "application/octet-stream", "Accept": "application/x-npy"}
    results: dict[str, Any] = {}
    rows = []
    try:
        with local_service.service(MODELS) as service:
            for model in MODELS:
                entry = catalog.get(model)
                inputs = prepare(images, entry.input)
                path = artifacts.folder(model, catalog.DEFAULT_VERSION) / artifacts.TORCHSCRIPT
                network = torch.jit.freeze(torch.jit.load(str(path)).eval())  # type: ignore[no-untyped-call]
                url = f"{service.inference}/predictions/{model}"
                tried = {(c, t): alone(network, inputs, c, t, 1.0) for c in CHUNKS for t in THREADS}
                chunk, threads = max(tried, key=lambda key: tried[key])
                rates: dict[str, list[float]] = {
                    "alone": [],
                    **{f"served, {connections} at a time": [] for connections in CONNECTIONS},
                }
                wrk.run(url, 4, 2, body, headers)
                for turn in range(1, ROUNDS + 1):
                    print(f"\r{model} round {turn}/{ROUNDS}", end="", file=sys.stderr)
                    rates["alone"].append(alone(network, inputs, chunk, threads, SECONDS))
                    for connections in CONNECTIONS:
                        load = wrk.run(url, connections, SECONDS, body, headers)
                        if load.failed:
                            raise wrk.LoadError(f"{load.failed} requests failed")
                        rates[f"served, {connections} at a time"].append(load.rate * IMAGES)
                medians = {name: statistics.median(rounds) for name, rounds in rates.items()}
                best = max(rate for name, rate in medians.items() if name != "alone")
                ratio = best / medians["alone"]
                results[model] = {
                    "images_per_second": {name: [round(rate) for rate in rounds] for name, rounds in rates.items()},
                    "alone": {"chunk": chunk, "threads": threads},
                    "tried_alone": {f"{c} x {t} threads": round(rate) for (c, t), rate in tried.items()},
                    "ratio": ratio,
                }
                rows += [[model, name, f"{rate:,.0f}"] for name, rate in medians.items()]
                rows.append([model, f"best served / alone (chunk {chunk}, {threads} threads)", f"{ratio:.2f}"])
    except (wrk.LoadError, local_service.ServiceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(file=sys.stderr)
    print(reporting.table(["model", "way", "images/s"], rows))
    print(f"→ {reporting.write('bulk', results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
