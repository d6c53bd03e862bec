"""Augmented images are whole, and every shift and mirroring is equally likely."""

import dataclasses

import pytest
import torch

from models.augmentation import Batches
from models.catalog import CATALOG

SETTINGS = dataclasses.replace(CATALOG["fashion_mlp"].training, flip=True, shift=1)
COUNT = 3600


@pytest.fixture
def images():
    return torch.rand(5, 6, 7, generator=torch.Generator().manual_seed(0))


def batches(images, **changes):
    return Batches(images, dataclasses.replace(SETTINGS, **changes), torch.Generator().manual_seed(1))


def moved(image, down, across):
    """The image in a window that is moved down and right, with edges repeated outwards."""
    height, width = image.shape
    rows = (torch.arange(height) + down).clamp(0, height - 1)
    columns = (torch.arange(width) + across).clamp(0, width - 1)
    return image[rows][:, columns]


def test_every_shift_and_mirroring_is_equally_frequent(images):
    drawn = batches(images)[torch.full((COUNT,), 3)]
    ways = [
        moved(image, down, across)
        for image in (images[3], images[3].flip(-1))
        for down in (-1, 0, 1)
        for across in (-1, 0, 1)
    ]
    counts = [int((drawn == way).all(-1).all(-1).sum()) for way in ways]
    assert sum(counts) == COUNT
    # 200 expected of each; five standard deviations are 69.
    assert all(131 < count < 269 for count in counts)


def test_each_index_returns_its_own_image(images):
    chosen = torch.tensor([4, 0, 0, 2])
    drawn = batches(images, flip=False)[chosen]
    for index, image in zip(chosen, drawn, strict=True):
        assert any(
            torch.equal(image, moved(images[index], down, across)) for down in (-1, 0, 1) for across in (-1, 0, 1)
        )


def test_mirroring_alone_does_not_shift(images):
    drawn = batches(images, shift=0)[torch.full((100,), 1)]
    mirrored = (drawn == images[1].flip(-1)).all(-1).all(-1)
    assert mirrored.any()
    assert torch.equal(drawn[~mirrored], images[1].expand(int((~mirrored).sum()), -1, -1))


def test_without_augmentation_vectors_are_unchanged():
    vectors = torch.rand(5, 4)
    assert torch.equal(batches(vectors, flip=False, shift=0)[torch.tensor([2, 1])], vectors[[2, 1]])
