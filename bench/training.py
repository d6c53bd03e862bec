"""Training: images per second of the project's loop, compared with a textbook loop of the same network and batch size.

    python -m bench.training       part of make bench; about two minutes

The textbook loop has a Dataset that makes a picture and then a normalized tensor of each sample, like torchvision's
FashionMNIST with ToTensor and Normalize. It uses a shuffling DataLoader with 64 samples per batch, and Adam. The
project's loop has the catalog's settings, including augmentation, dropout and averaging, and the same batch size.
"""

from __future__ import annotations

import dataclasses
import io
import statistics
import sys
import time

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from bench import reporting
from models import catalog
from models.catalog import FASHION_MEAN, FASHION_STD
from models.datasets import Dataset, fashion_mnist
from models.training import train

MODELS = ("fashion_mlp", "fashion_convnet")
BATCH = 64
# Enough for a steady rate; more examples would not change it.
EXAMPLES = 20_000
ROUNDS = 5


class Samples(TorchDataset[tuple[Tensor, int]]):
    """One sample at a time: picture, tensor of 0 to 1, normalized, padded if the network needs it."""

    def __init__(self, images: NDArray[np.uint8], targets: NDArray[np.int64], padding: int) -> None:
        self._images, self._targets, self._padding = images, targets, padding

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(self._images[index], mode="L")
        pixels = torch.from_numpy(np.array(picture, np.uint8, copy=True))[None]
        tensor = pixels.to(torch.float32).div(255)
        tensor = tensor.sub(torch.tensor([FASHION_MEAN])[:, None, None]).div(torch.tensor([FASHION_STD])[:, None, None])
        return nn.functional.pad(tensor, (self._padding,) * 4), int(self._targets[index])


def textbook(name: str, dataset: Dataset) -> float:
    """Images per second of one epoch."""
    entry = catalog.get(name)
    torch.manual_seed(0)
    network = entry.network()
    samples = Samples(dataset.train_inputs.numpy(), dataset.train_targets.numpy(), entry.input.padding)
    loader = DataLoader(samples, BATCH, shuffle=True)
    optimizer = torch.optim.Adam(network.parameters())
    criterion = nn.CrossEntropyLoss()
    begin = time.perf_counter()
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(network(inputs.reshape(-1, *entry.input.network_shape)), targets)
        loss.backward()
        optimizer.step()
    return len(samples) / (time.perf_counter() - begin)


def ours(name: str, dataset: Dataset) -> float:
    """Images per second of the second of two epochs, as the progress bar shows them."""
    entry = catalog.get(name)
    settings = dataclasses.replace(entry.training, epochs=2, batch_size=BATCH, validation=1000)
    quiet = Console(file=io.StringIO())
    return train(entry, dataset, settings, 0, quiet).history[-1].images_per_second


def main() -> int:
    """Write ``bench/results/training.json``; return the exit code."""
    whole = fashion_mnist()
    dataset = dataclasses.replace(
        whole, train_inputs=whole.train_inputs[:EXAMPLES], train_targets=whole.train_targets[:EXAMPLES]
    )
    results, rows = {}, []
    for name in MODELS:
        rates: dict[str, list[float]] = {"textbook": [], "models.training": []}
        for turn in range(1, ROUNDS + 1):
            print(f"\r{name} round {turn}/{ROUNDS}", end="", file=sys.stderr)
            rates["textbook"].append(textbook(name, dataset))
            rates["models.training"].append(ours(name, dataset))
        medians = {way: statistics.median(rounds) for way, rounds in rates.items()}
        ratio = medians["models.training"] / medians["textbook"]
        results[name] = {"images_per_second": rates, "medians": medians, "ratio": ratio}
        rows.append([name, *(f"{rate:,.0f}" for rate in medians.values()), f"{ratio:.1f}"])
    print(file=sys.stderr)
    print(reporting.table(["model", "textbook images/s", "models.training images/s", "ratio"], rows))
    print(f"→ {reporting.write('training', results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
