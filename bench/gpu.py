"""The same networks and the running service on a CUDA machine, beside plain torch on that GPU.

    python -m bench.gpu            needs a CUDA device and wrk; some three minutes
    python -m bench.gpu --cpu      the same steps on the processor, which tests use: no figure of a GPU

Bulk: images a second of the handler's own steps (pixels in, probabilities out, copies among them) by batch size, beside
torch alone on inputs that lie on the device already, each with and without a CUDA graph, which launches a batch's
kernels in one go (PyTorch's documentation, "CUDA Graphs"). Service: requests a second, p50 and p99 by concurrency.
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
    """The network as a CUDA graph for inputs of this shape; answers lie in one buffer that the next call overwrites."""
    held = inputs.clone()
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            network(held)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = network(held)

    def replay(values: Tensor) -> Tensor:
        held.copy_(values)
        graph.replay()
        return answer

    return replay


def rate(step: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Steps a second; the median of ``ROUNDS`` that share the time."""

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    step()
    finish()
    rates: list[float] = []
    for _ in range(ROUNDS):
        done, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds / ROUNDS:
            for _ in range(8):
                step()
            finish()
            done += 8
        rates.append(done / (time.perf_counter() - begun))
    return statistics.median(rates)


def _pixels_to_probabilities(
    network: Callable[[Tensor], Tensor], pixels: Tensor, entry: Entry, device: torch.device
) -> Tensor:
    return network(prepare(pixels.to(device), entry.input)).softmax(1).cpu()


def bulk(entry: Entry, device: torch.device, batches: tuple[int, ...], seconds: float) -> list[dict[str, Any]]:
    """Images a second by batch size: torch alone, and from pixels to probabilities, each with and without a graph."""
    path = artifacts.folder(entry.name, catalog.DEFAULT_VERSION) / artifacts.TORCHSCRIPT
    network = torch.jit.freeze(torch.jit.load(str(path), map_location=device).eval())  # type: ignore[no-untyped-call]
    images = fashion_mnist().test_inputs
    found = []
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
                    raise AssertionError(f"{name} answers otherwise than torch")
                row[name] = rate(functools.partial(call, inputs), device, seconds) * len(pixels)
                whole = functools.partial(_pixels_to_probabilities, call, pixels, entry, device)
                row[f"{name}, pixels to probabilities"] = rate(whole, device, seconds) * len(pixels)
            found.append(row)
    return found


def served(seconds: int) -> list[dict[str, Any]]:
    """Requests a second and percentiles of a private service, which takes the GPU by itself where there is one."""
    body = fashion_mnist().test_inputs[0].numpy().tobytes()
    headers = {"Content-Type": "application/octet-stream"}
    found = []
    with local_service.service(MODELS) as service:
        for model in MODELS:
            url = f"{service.inference}/predictions/{model}"
            wrk.run(url, 64, seconds, body, headers)
            for connections in CONNECTIONS:
                rounds = [wrk.run(url, connections, seconds, body, headers) for _ in range(ROUNDS)]
                found.append(
                    {
                        "model": model,
                        "connections": connections,
                        "requests_per_second": statistics.median(load.rate for load in rounds),
                        "p50_ms": statistics.median(load.p50 for load in rounds),
                        "p99_ms": statistics.median(load.p99 for load in rounds),
                        "failed": sum(load.failed for load in rounds),
                    }
                )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="Networks and service on a CUDA machine.")
    parser.add_argument("--cpu", action="store_true", help="run the steps on the processor and write no result")
    on_cpu = parser.parse_args().cpu
    if not on_cpu and not torch.cuda.is_available():
        print("error: torch finds no CUDA device here; --cpu runs the same steps on the processor", file=sys.stderr)
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
