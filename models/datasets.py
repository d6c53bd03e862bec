"""The datasets as tensors: FashionMNIST, and two seeded synthetic sets."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from models import fashion_mnist as files


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A whole dataset held as tensors.

    Attributes:
        name: as model cards show it.
        train_inputs: [N, *shape]; uint8 pixels 0-255 or float32 features.
        train_targets: [N] int64 class indices, or [N, labels] float32 of 0 and 1 for independent labels.
        test_inputs: as ``train_inputs``.
        test_targets: as ``train_targets``.
        digests: SHA-256 of each part, by name.
    """

    name: str
    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    digests: dict[str, str]


@functools.cache
def fashion_mnist() -> Dataset:
    """FashionMNIST: 60,000 and 10,000 gray images, uint8 [N, 28, 28], ten classes. Shared: do not write to them.

    Raises:
        models.errors.DataError: as ``models.fashion_mnist.folder`` and ``read``.
    """
    arrays = files.read(files.folder()).values()
    train, train_labels, test, test_labels = (torch.from_numpy(array.copy()) for array in arrays)
    return Dataset("FashionMNIST", train, train_labels.long(), test, test_labels.long(), dict(files.FILES))


def _split(name: str, inputs: Tensor, targets: Tensor, test: int) -> Dataset:
    """Keep the last ``test`` examples for testing."""
    parts = {
        "train_inputs": inputs[:-test],
        "train_targets": targets[:-test],
        "test_inputs": inputs[-test:],
        "test_targets": targets[-test:],
    }
    digests = {part: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for part, tensor in parts.items()}
    return Dataset(name, **parts, digests=digests)


def blobs() -> Dataset:
    """Three Gaussian blobs of four features (scikit-learn ``make_blobs``, seeded): 4,000 and 1,000 examples."""
    # Imported here because the import takes seconds that the other datasets need not pay.
    from sklearn.datasets import make_blobs

    inputs, targets = make_blobs(n_samples=5000, n_features=4, centers=3, cluster_std=1.5, random_state=7)
    return _split("Gaussian blobs", torch.from_numpy(inputs).float(), torch.from_numpy(targets).long(), 1000)


def two_labels() -> Dataset:
    """Three uniform features in [-3, 3), the labels ``x0 + x1 > 0`` and ``x1 - x2 > 0``; 8,000 and 2,000 examples."""
    inputs = np.random.default_rng(7).uniform(-3, 3, (10000, 3)).astype(np.float32)
    targets = np.stack([inputs[:, 0] + inputs[:, 1] > 0, inputs[:, 1] - inputs[:, 2] > 0], axis=1)
    return _split("Two linear labels", torch.from_numpy(inputs), torch.from_numpy(targets.astype(np.float32)), 2000)


DATASETS: dict[str, Callable[[], Dataset]] = {
    "fashion_mnist": fashion_mnist,
    "blobs": blobs,
    "two_labels": two_labels,
}
