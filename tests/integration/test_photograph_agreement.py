"""Catalogue-like photographs get the answers of the data set's pictures that they show."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from handlers.inputs import images
from models import artifacts
from models.building import load_network
from models.catalog import CATALOG, DEFAULT_VERSION
from models.datasets import DATASETS
from models.training import forward, prepare

COUNT = 300
AGREEMENT = 0.93
SHAPE = (28, 28)
WHITE, SHADES = (255, 255, 255), ((244, 244, 242), (200, 220, 240), (250, 230, 200), (180, 60, 60), (40, 90, 160))
ENLARGING = [Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS]
IMAGE_MODELS = [name for name, entry in CATALOG.items() if entry.dataset == "fashion_mnist"]


def catalogue_picture(original: np.ndarray, random: np.random.Generator, ground: tuple[int, int, int]) -> bytes:
    """The item of a test image as a shop shows it: large, dark where the image is bright, somewhere on a ground."""
    scale, method = int(random.integers(4, 13)), ENLARGING[random.integers(len(ENLARGING))]
    size = (28 * scale, 28 * scale)
    item = Image.fromarray(255 - original).resize(size, method).convert("RGB")
    outline = Image.fromarray((original > 0).astype(np.uint8) * 255).resize(size, method)
    top, bottom, left, right = (int(margin) for margin in random.integers(0, 8 * scale, 4))
    picture = Image.new("RGB", (left + size[0] + right, top + size[1] + bottom), ground)
    picture.paste(item, (left, top), outline)
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


@pytest.fixture(scope="module")
def originals() -> np.ndarray:
    return DATASETS["fashion_mnist"]().test_inputs[:COUNT].numpy()


@pytest.fixture(scope="module", params=["white ground", "coloured grounds"])
def converted(request, originals) -> np.ndarray:
    """What the handlers make of the pictures, uint8 [COUNT, 28, 28]."""
    random = np.random.default_rng(0)
    grounds = [WHITE] if request.param == "white ground" else SHADES
    found = [
        images.decode(catalogue_picture(original, random, grounds[place % len(grounds)]), SHAPE)
        for place, original in enumerate(originals)
    ]
    return np.stack(found)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_photographs_are_seen_as_what_they_show(name, originals, converted):
    entry = CATALOG[name]
    network = load_network(entry, DEFAULT_VERSION)
    assert artifacts.signature(name, DEFAULT_VERSION).input == entry.input

    def classes(pictures: np.ndarray) -> np.ndarray:
        return forward(network, prepare(torch.from_numpy(pictures), entry.input)).argmax(1).numpy()

    agreement = (classes(converted) == classes(originals)).mean()
    assert agreement >= AGREEMENT
