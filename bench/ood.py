"""How well the out-of-distribution score separates other images from the data set's test images.

    python -m bench.ood FOLDER      FOLDER holds one folder of photographs for each kind of UNKNOWN_KINDS

Prints, for each kind of image, the area under the ROC curve (AUROC; 1: every such image has a higher score than every
test image) and the share of them above the threshold.
"""

from __future__ import annotations

import argparse
import string
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torchmetrics.functional.classification import binary_auroc

from bench.photographs import MODELS, load
from handlers.inputs import images
from handlers.outputs import ood
from models import artifacts
from models.catalog import DEFAULT_VERSION
from models.datasets import fashion_mnist

SHAPE = (28, 28)
COUNT = 1000
# Kinds of clothes that the data set does not have.
UNKNOWN_KINDS = ("hat", "shorts", "skirt")

Pictures = NDArray[np.uint8]


def text(characters: str, lengths: tuple[int, int], sizes: tuple[int, int], random: np.random.Generator) -> Pictures:
    """White text on black, a little turned: of ``lengths`` characters and ``sizes`` pixels, the ends excluded."""
    pictures = []
    for _ in range(COUNT):
        words = "".join(random.choice(list(characters), size=int(random.integers(*lengths))))
        picture = Image.new("L", SHAPE)
        font = ImageFont.load_default(int(random.integers(*sizes)))
        center = (SHAPE[1] / 2 + random.integers(-2, 3), SHAPE[0] / 2 + random.integers(-2, 3))
        ImageDraw.Draw(picture).text(center, words, int(random.integers(150, 256)), font, anchor="mm")
        pictures.append(np.asarray(picture.rotate(float(random.normal(0, 8)))))
    return np.stack(pictures)


def strange_images() -> dict[str, Pictures]:
    """Images that show no clothes, uint8 ``[N, 28, 28]`` by name."""
    random = np.random.default_rng(0)
    levels = np.arange(256, dtype=np.uint8)[:, np.newaxis, np.newaxis]
    means, deviations = random.uniform(0, 255, (COUNT, 1, 1)), random.uniform(5, 80, (COUNT, 1, 1))
    normal = random.normal(means, deviations, (COUNT, *SHAPE))
    return {
        "one color": np.broadcast_to(levels, (256, *SHAPE)),
        "uniform noise": random.integers(0, 256, (COUNT, *SHAPE), np.uint8),
        "normal noise": normal.clip(0, 255).astype(np.uint8),
        "digits": text(string.digits, (1, 2), (18, 30), random),
        "text": text(string.ascii_letters, (2, 8), (8, 16), random),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="one folder of photographs for each kind")
    folder = parser.parse_args().folder
    kinds = strange_images()
    for kind in UNKNOWN_KINDS:
        files = sorted((folder / kind).glob("*"))
        kinds[kind] = np.stack([images.decode(file.read_bytes(), SHAPE) for file in files])
    kinds["clothes of known kinds"] = load(folder).pixels
    for model in MODELS:
        threshold = artifacts.signature(model, DEFAULT_VERSION).ood_threshold
        if threshold is None:
            sys.exit(f"error: {model} {DEFAULT_VERSION} has no references; run: make train MODEL={model}")
        detector = ood.read(artifacts.folder(model, DEFAULT_VERSION))
        usual = detector.scores(fashion_mnist().test_inputs.numpy())
        print(f"{model}: threshold {threshold:.3f}")
        for kind, pictures in kinds.items():
            scores = detector.scores(pictures)
            strange = torch.cat([torch.zeros(len(usual)), torch.ones(len(scores))]).long()
            area = binary_auroc(torch.from_numpy(np.concatenate([usual, scores])), strange)
            print(f"  {kind:23} AUROC {area:.3f}, above {(scores > threshold).mean():.2f}")


if __name__ == "__main__":
    main()
