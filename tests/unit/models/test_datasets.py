"""The datasets as tensors."""

import pytest
import torch

from models import datasets


def test_fashion_mnist_is_whole():
    data = datasets.fashion_mnist()
    assert data.train_inputs.shape == (60000, 28, 28)
    assert data.test_inputs.shape == (10000, 28, 28)
    assert data.train_inputs.dtype == torch.uint8
    assert torch.bincount(data.train_targets).tolist() == [6000] * 10
    assert torch.bincount(data.test_targets).tolist() == [1000] * 10


def test_fashion_mnist_is_read_once():
    assert datasets.fashion_mnist() is datasets.fashion_mnist()


@pytest.mark.parametrize("name", ["blobs", "two_labels"])
def test_synthetic_data_is_the_same_each_time(name):
    first, second = datasets.DATASETS[name](), datasets.DATASETS[name]()
    assert first.digests == second.digests
    assert torch.equal(first.train_inputs, second.train_inputs)
