"""Pictures made from the data set's get the answers of their originals: a shop's photographs, other sizes, cut out."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from handlers.inputs import images
from models import artifacts
from models.building import load_network
from models.catalog import CATALOG, DEFAULT_VERSION
from models.datasets import DATASETS
from models.training import forward, prepare

COUNT = 300
# Share of pictures with the answer of their original; the conversion back is not exact.
MIN_AGREEMENT, MIN_AGREEMENT_ON_BLACK = 0.92, 0.87
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


def saved(picture: Image.Image, format_: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture.save(file, format_, quality=90)
    return file.getvalue()


def lit(original: np.ndarray, light: np.ndarray) -> bytes:
    """A photograph of 400x400 pixels on white, whose background is lit by ``light``, 0-1."""
    item = np.zeros(light.shape)
    item[60:340, 60:340] = np.asarray(Image.fromarray(original).resize((280, 280), Image.Resampling.BICUBIC))
    share = np.clip(item / 64, 0, 1)
    gray = share * (255 - item) + (1 - share) * 255 * light
    return saved(Image.fromarray(gray.clip(0, 255).astype(np.uint8)).convert("RGB"), "JPEG")


def cut_out(original: np.ndarray, darkest: int, lightest: int) -> bytes:
    """A light item on transparent ground, its relief between two levels."""
    item = np.asarray(Image.fromarray(original).resize((280, 280), Image.Resampling.BICUBIC)).astype(float)
    shade = darkest + item * (lightest - darkest) / 255
    return saved(Image.fromarray(np.dstack([shade] * 3 + [np.clip(4 * item, 0, 255)]).astype(np.uint8)))


def enlarged(original: np.ndarray, size: int, method: Image.Resampling, margin: int = 0) -> bytes:
    """A picture in the data set's look, larger or with a margin."""
    return saved(ImageOps.expand(Image.fromarray(original).resize((size, size), method), margin, 0))


ACROSS, DOWN = np.meshgrid(np.linspace(0, 1, 400), np.linspace(0, 1, 400))
RANDOM = np.random.default_rng(0)
PICTURES: dict[str, Callable[[np.ndarray], bytes]] = {
    "white background": lambda original: photograph(original, RANDOM, WHITE),
    "colored backgrounds": lambda original: photograph(original, RANDOM, SHADES[RANDOM.integers(len(SHADES))]),
    "light falls to the right": lambda original: lit(original, 1 - 60 / 255 * ACROSS),
    "light falls to the corners": lambda original: lit(
        original, 1 - 80 / 255 * ((ACROSS - 0.5) ** 2 + (DOWN - 0.5) ** 2)
    ),
    "enlarged": lambda original: enlarged(original, 280, Image.Resampling.NEAREST),
    "enlarged smoothly": lambda original: enlarged(original, 280, Image.Resampling.BICUBIC, 10),
    "padded": lambda original: enlarged(original, 28, Image.Resampling.NEAREST, 2),
    "white on transparent ground": lambda original: cut_out(original, 245, 255),
    "light on transparent ground": lambda original: cut_out(original, 200, 245),
    "on white, of the model's size": lambda original: saved(Image.fromarray(255 - original)),
}
# On black a photograph may pass for a picture in the data set's look, and dark parts of the item for background.
UNSURE: dict[str, Callable[[np.ndarray], bytes]] = {
    "black background": lambda original: photograph(original, RANDOM, (0, 0, 0)),
}


@pytest.fixture(scope="module", params=[*PICTURES, *UNSURE])
def converted(request, originals) -> tuple[np.ndarray, float]:
    """The handlers' conversions of the pictures, uint8 [COUNT, 28, 28], and the least agreement."""
    make, least = (
        (PICTURES[request.param], MIN_AGREEMENT)
        if request.param in PICTURES
        else (UNSURE[request.param], MIN_AGREEMENT_ON_BLACK)
    )
    return np.stack([images.decode(make(original), SHAPE) for original in originals]), least


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_photographs_get_the_answers_of_their_originals(name, originals, converted):
    entry = CATALOG[name]
    network = load_network(entry, DEFAULT_VERSION)
    assert artifacts.signature(name, DEFAULT_VERSION).input == entry.input

    def classes(pictures: np.ndarray) -> np.ndarray:
        return forward(network, prepare(torch.from_numpy(pictures), entry.input)).argmax(1).numpy()

    pictures, least = converted
    assert (classes(pictures) == classes(originals)).mean() >= least
