"""The networks and the running service on a CUDA machine, compared with plain torch on the same GPU.

    python -m bench.gpu            needs a CUDA device and wrk; about three minutes
    python -m bench.gpu --cpu      the same steps on the processor, for tests; writes no results

Bulk: images per second by batch size. The handler's own steps (pixels to probabilities, with the copies) are compared
with torch alone on inputs that are already on the device. Both are measured with and without a CUDA graph, which
launches all kernels of a batch in one call (PyTorch's documentation, "CUDA Graphs"). Service: requests per second, p50
and p99 by concurrency.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench import local_service, reporting, wrk
from models import artifacts, catalog
from models.catalog import Entry
from models.datasets import fashion_mnist
from models.training import prepare

MODELS = ("fashion_mlp", "fashion_convnet")
BATCHES = (1, 16, 64, 256, 1024, 8192)
CONNECTIONS = (1, 64, 256)
ROUNDS = 5
SECONDS = 3


def captured(network: Callable[[Tensor], Tensor], inputs: Tensor) -> Callable[[Tensor], Tensor]:
    """The network as a CUDA graph for inputs of this shape. The next call overwrites the answer's buffer."""
    static_inputs = inputs.clone()
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            network(static_inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = network(static_inputs)

    def replay(values: Tensor) -> Tensor:
        static_inputs.copy_(values)
        graph.replay()
        return answer

    return replay


def rate(step: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Steps per second; the median of ``ROUNDS`` rounds that share the time."""

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    step()
    finish()
    rates: list[float] = []
    for _ in range(ROUNDS):
        done, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds / ROUNDS:
            for _ in range(8):
                step()
            finish()
            done += 8
        rates.append(done / (time.perf_counter() - begin))
    return statistics.median(rates)


def _pixels_to_probabilities(
    network: Callable[[Tensor], Tensor], pixels: Tensor, entry: Entry, device: torch.device
) -> Tensor:
    return network(prepare(pixels.to(device), entry.input)).softmax(1).cpu()


def bulk(entry: Entry, device: torch.device, batches: tuple[int, ...], seconds: float) -> list[dict[str, Any]]:
    """Images per second by batch size: torch alone, and pixels to probabilities, each with and without a graph."""
    path = artifacts.folder(entry.name, catalog.DEFAULT_VERSION) / artifacts.TORCHSCRIPT
    network = torch.jit.freeze(torch.jit.load(str(path), map_location=device).eval())  # type: ignore[no-untyped-call]
    images = fashion_mnist().test_inputs
    rows = []
    with torch.inference_mode():
        for batch in batches:
            pixels = images[:batch].contiguous()
            inputs = prepare(pixels, entry.input).to(device)
            ways: dict[str, Callable[[Tensor], Tensor]] = {"torch": network}
            if device.type == "cuda":
                ways["CUDA graph"] = captured(network, inputs)
            row: dict[str, Any] = {"model": entry.name, "batch": len(pixels)}
            for name, call in ways.items():
                expected = network(inputs)
                if not torch.allclose(call(inputs), expected, atol=1e-3):
                    raise AssertionError(f"{name} and torch give different answers")
                row[name] = rate(functools.partial(call, inputs), device, seconds) * len(pixels)
                whole = functools.partial(_pixels_to_probabilities, call, pixels, entry, device)
                row[f"{name}, pixels to probabilities"] = rate(whole, device, seconds) * len(pixels)
            rows.append(row)
    return rows


def served(seconds: int) -> list[dict[str, Any]]:
    """Requests per second and percentiles of a private service, which uses a GPU if there is one."""
    body = fashion_mnist().test_inputs[0].numpy().tobytes()
    headers = {"Content-Type": "application/octet-stream"}
    rows = []
    with local_service.service(MODELS) as service:
        for model in MODELS:
            url = f"{service.inference}/predictions/{model}"
            wrk.run(url, 64, seconds, body, headers)
            for connections in CONNECTIONS:
                rounds = [wrk.run(url, connections, seconds, body, headers) for _ in range(ROUNDS)]
                rows.append(
                    {
                        "model": model,
                        "connections": connections,
                        "requests_per_second": statistics.median(load.rate for load in rounds),
                        "p50_ms": statistics.median(load.p50 for load in rounds),
                        "p99_ms": statistics.median(load.p99 for load in rounds),
                        "failed": sum(load.failed for load in rounds),
                    }
                )
    return rows


def main() -> int:
    """Write ``bench/results/gpu.json``; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="Networks and service on a CUDA machine.")
    parser.add_argument("--cpu", action="store_true", help="run the steps on the processor and write no result")
    on_cpu = parser.parse_args().cpu
    if not on_cpu and not torch.cuda.is_available():
        print("error: torch finds no CUDA device; --cpu runs the same steps on the processor", file=sys.stderr)
        return 1
    device = torch.device("cpu" if on_cpu else "cuda")
    batches, seconds = (BATCHES[:3], 0.1) if on_cpu else (BATCHES, float(SECONDS))
    name = "cpu" if on_cpu else torch.cuda.get_device_name()
    try:
        rows = [row for model in MODELS for row in bulk(catalog.get(model), device, batches, seconds)]
        service = served(1 if on_cpu else SECONDS)
    except (wrk.LoadError, local_service.ServiceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    titles = list(rows[0])
    print(
        reporting.table(
            titles, [[f"{v:,.0f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
        )
    )
    print(reporting.table(list(service[0]), [[str(value) for value in row.values()] for row in service]))
    if not on_cpu:
        print(f"→ {reporting.write('gpu', {'device': name, 'bulk': rows, 'service': service})}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
