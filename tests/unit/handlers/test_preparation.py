"""Examples become the network's input."""

import dataclasses

import pytest
import torch

from handlers.preparation import Preparation
from tests.support.signatures import COLOR, FASHION, VECTOR


def test_each_channel_has_its_scaling():
    spec = dataclasses.replace(COLOR.input, padding=1, network_shape=(3, 10, 14))
    prepared = Preparation(spec)(torch.full((2, 3, 8, 12), 255, dtype=torch.uint8))
    assert prepared.shape == (2, 3, 10, 14)
    assert prepared[1, :, 4, 4].tolist() == pytest.approx([0.5, 2.0, 3.5])
    # The padding is black before it is scaled.
    assert prepared[1, :, 0, 0].tolist() == pytest.approx([-0.5, 0.0, 0.5])


def test_each_feature_has_its_scaling():
    spec = dataclasses.replace(VECTOR.input, gain=(1.0, 2.0, 3.0, 4.0), bias=1.0)
    assert Preparation(spec)(torch.ones(1, 4)).tolist() == [[2.0, 3.0, 4.0, 5.0]]


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        (FASHION.input, 256),
        # 1024 * 1024 values are 85 examples, and a call computes 80 or 88.
        (dataclasses.replace(COLOR.input, shape=(3, 64, 64), network_shape=(3, 64, 64)), 80),
        (dataclasses.replace(COLOR.input, shape=(3, 224, 224), network_shape=(3, 224, 224)), 6),
        (dataclasses.replace(COLOR.input, shape=(3, 1000, 1000), network_shape=(3, 1000, 1000)), 1),
    ],
    ids=["28x28", "3x64x64", "3x224x224", "3x1000x1000"],
)
def test_large_examples_go_through_the_network_in_small_chunks(spec, count):
    assert Preparation(spec).chunk == count
