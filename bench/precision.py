"""The MLP at other precisions: time per image, accuracy, and the largest change of a probability from float32.

    python -m bench.precision      part of make bench; a minute; for processors with AVX-512 BF16 and VNNI

oneDNN computes bfloat16, FBGEMM computes int8 (``models/quantizing.py``).
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench import reporting
from handlers.torchscript import THREADS, optimized
from models import artifacts, catalog, quantizing
from models.building import load_network
from models.datasets import fashion_mnist
from models.training import prepare

# Linear layers only: a call is mostly matrix products, and these are what a precision changes.
MODEL = "fashion_mlp"
# Examples in one call: from a lone caller's to the most that a worker puts into one (handlers/classifier.py).
BATCHES = (1, 16, 64, 256)
# Odd, so that the median is a measured round.
ROUNDS = 7
# TorchScript optimizes a network in its first calls; the processor's clock settles during the rest.
_WARM_UP_CALLS = 20
# A call of one example takes tens of microseconds (bench/results/precision.json): 50 calls take far longer than reading
# the time.
_CALLS_PER_ROUND = 50


def _ways(network: nn.Module, examples: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    path = artifacts.folder(MODEL, catalog.DEFAULT_VERSION) / artifacts.TORCHSCRIPT
    scripted = torch.jit.load(str(path)).eval()  # type: ignore[no-untyped-call]
    half = load_network(catalog.get(MODEL), catalog.DEFAULT_VERSION).to(torch.bfloat16)
    with warnings.catch_warnings():
        # torch has deprecated TorchScript, which TorchServe's archives hold.
        warnings.simplefilter("ignore")
        bfloat16 = torch.jit.freeze(torch.jit.script(half.eval()))
    int8 = torch.jit.freeze(quantizing.convert(network, examples))
    return {
        "float32, frozen": torch.jit.freeze(scripted),
        "float32, packed (as served)": optimized(scripted, torch.device("cpu")),
        "bfloat16": lambda inputs: bfloat16(inputs.to(torch.bfloat16)).float(),
        "int8": int8,
    }


def _microseconds(call: Callable[[Tensor], Tensor], inputs: Tensor) -> float:
    for _ in range(_WARM_UP_CALLS):
        call(inputs)
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(_CALLS_PER_ROUND):
            call(inputs)
        times.append((time.perf_counter() - begin) / _CALLS_PER_ROUND)
    return statistics.median(times) / len(inputs) * 1e6


def main() -> int:
    """Write ``bench/results/precision.json``; return the exit code."""
    torch.set_num_threads(THREADS)
    entry, dataset = catalog.get(MODEL), fashion_mnist()
    inputs = prepare(dataset.test_inputs, entry.input)
    examples = prepare(dataset.train_inputs[: quantizing.OBSERVED_COUNT], entry.input)
    temperature = artifacts.signature(MODEL, catalog.DEFAULT_VERSION).output.temperature
    results, rows = {}, []
    reference: Tensor | None = None
    with torch.inference_mode():
        for name, call in _ways(load_network(entry, catalog.DEFAULT_VERSION), examples).items():
            probabilities = (call(inputs) / temperature).softmax(1)
            reference = probabilities if reference is None else reference
            accuracy = (probabilities.argmax(1) == dataset.test_targets).float().mean().item()
            difference = (probabilities - reference).abs().max().item()
            times = {batch: _microseconds(call, inputs[:batch]) for batch in BATCHES}
            results[name] = {
                "test_accuracy": accuracy,
                "largest_difference": difference,
                "microseconds_an_image": times,
            }
            rows.append([name, f"{accuracy:.4f}", f"{difference:.1e}", *(f"{times[batch]:.1f}" for batch in BATCHES)])
    titles = ["precision", "accuracy", "largest difference", *(f"us per image, batch {batch}" for batch in BATCHES)]
    print(reporting.table(titles, rows))
    print(f"→ {reporting.write('precision', results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
