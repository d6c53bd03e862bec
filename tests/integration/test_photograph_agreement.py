"""Photographs like a shop's get the same answers as the data set's pictures that they were made from."""

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
# Share of photographs with the answer of their original; the conversion back is not exact.
MIN_AGREEMENT = 0.93
SHAPE = (28, 28)
WHITE, SHADES = (255, 255, 255), ((244, 244, 242), (200, 220, 240), (250, 230, 200), (180, 60, 60), (40, 90, 160))
ENLARGING = [Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS]
IMAGE_MODELS = [name for name, entry in CATALOG.items() if entry.dataset == "fashion_mnist"]


def photograph(original: np.ndarray, random: np.random.Generator, background: tuple[int, int, int]) -> bytes:
    """The item of a test image as in a shop's photograph: large, negated, at a random position on a background."""
    scale, method = int(random.integers(4, 13)), ENLARGING[random.integers(len(ENLARGING))]
    size = (28 * scale, 28 * scale)
    item = Image.fromarray(255 - original).resize(size, method).convert("RGB")
    outline = Image.fromarray((original > 0).astype(np.uint8) * 255).resize(size, method)
    top, bottom, left, right = (int(margin) for margin in random.integers(0, 8 * scale, 4))
    picture = Image.new("RGB", (left + size[0] + right, top + size[1] + bottom), background)
    picture.paste(item, (left, top), outline)
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


@pytest.fixture(scope="module")
def originals() -> np.ndarray:
    return DATASETS["fashion_mnist"]().test_inputs[:COUNT].numpy()


@pytest.fixture(scope="module", params=["white background", "colored backgrounds"])
def converted(request, originals) -> np.ndarray:
    """The handlers' conversions of the photographs, uint8 [COUNT, 28, 28]."""
    random = np.random.default_rng(0)
    backgrounds = [WHITE] if request.param == "white background" else SHADES
    pictures = [
        images.decode(photograph(original, random, backgrounds[place % len(backgrounds)]), SHAPE)
        for place, original in enumerate(originals)
    ]
    return np.stack(pictures)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_photographs_get_the_answers_of_their_originals(name, originals, converted):
    entry = CATALOG[name]
    network = load_network(entry, DEFAULT_VERSION)
    assert artifacts.signature(name, DEFAULT_VERSION).input == entry.input

    def classes(pictures: np.ndarray) -> np.ndarray:
        return forward(network, prepare(torch.from_numpy(pictures), entry.input)).argmax(1).numpy()

    agreement = (classes(converted) == classes(originals)).mean()
    assert agreement >= MIN_AGREEMENT
