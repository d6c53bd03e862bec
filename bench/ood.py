"""How well the out-of-distribution score separates other images from the data set's test images, beside other scores.

    python -m bench.ood FOLDER      FOLDER holds one folder of photographs for each kind of both lists of kinds

Prints, for each score and kind of image, the area under the ROC curve (AUROC; 1: every such image has a higher score
than every test image), and for the served score the share above its threshold and the time of one image.
"""

from __future__ import annotations

import argparse
import string
import sys
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc

from bench.photographs import MODELS, load
from handlers.outputs import ood
from models import artifacts
from models.building import load_network
from models.catalog import CATALOG, DEFAULT_VERSION
from models.datasets import fashion_mnist
from models.fashion_mnist import KINDS
from models.training import forward, prepare

SHAPE = (28, 28)
COUNT = 1000
# Kinds of clothes that the data set does not have.
UNKNOWN_KINDS = ("hat", "shorts", "skirt")

# Training images that the compared scores take their statistics from, and of these the candidates for neighbors.
OBSERVED, CANDIDATES, NEIGHBOR = 30_000, 3_000, 5

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


class NetworkScores:
    """Scores from a network's own scores and features, each higher for stranger images.

    Energy (Liu et al. 2020), the largest probability, the smallest Mahalanobis distance of the scores to a class (Lee
    et al. 2018), and the distance to a neighbor by features, as cosine (Sun et al. 2022).
    """

    def __init__(self, model: str) -> None:
        self._entry = CATALOG[model]
        self._network = load_network(self._entry, DEFAULT_VERSION)
        self._features: list[Tensor] = []
        last = [module for module in self._network.modules() if isinstance(module, nn.Linear)][-1]
        last.register_forward_pre_hook(lambda _, inputs: self._features.append(inputs[0]))
        dataset = fashion_mnist()
        scores, features = self._run(dataset.train_inputs[:OBSERVED].numpy())
        targets = dataset.train_targets[:OBSERVED]
        self._means = torch.stack([scores[targets == label].mean(0) for label in range(scores.shape[1])])
        self._precision = torch.linalg.inv(torch.cov((scores - self._means[targets]).T))
        self._known = nn.functional.normalize(features[:CANDIDATES])

    def _run(self, pictures: Pictures) -> tuple[Tensor, Tensor]:
        """Scores ``[N, labels]``, float64 because some are nearly dependent, and features ``[N, size]``."""
        self._features.clear()
        scores = forward(self._network, prepare(torch.from_numpy(np.array(pictures)), self._entry.input))
        return scores.double(), torch.cat(self._features)

    def __call__(self, pictures: Pictures) -> dict[str, Tensor]:
        """Each score by name, ``[N]``."""
        scores, features = self._run(pictures)
        differences = scores[:, None] - self._means
        squares = torch.einsum("nci,ij,ncj->nc", differences, self._precision, differences)
        similarity = nn.functional.normalize(features) @ self._known.T
        return {
            "energy": -scores.logsumexp(1),
            "largest probability": -scores.softmax(1).amax(1),
            "Mahalanobis": squares.amin(1),
            f"neighbor {NEIGHBOR}": 1 - similarity.topk(NEIGHBOR, 1).values[:, -1],
        }


def separation(usual: Tensor, strange: Tensor) -> float:
    """The AUROC of scores of test images and of strange ones, each ``[N]``."""
    is_strange = torch.cat([torch.zeros(len(usual)), torch.ones(len(strange))]).long()
    # Ranks, because the metric squeezes scores beyond 0 to 1 by a sigmoid, which rounds large ones to the same value.
    ranks = torch.unique(torch.cat([usual, strange]), return_inverse=True)[1].double()
    return float(binary_auroc(ranks / ranks.max(), is_strange))


def _scores(detector: ood.Detector, network_scores: NetworkScores, pictures: Pictures) -> dict[str, Tensor]:
    return {"served": torch.from_numpy(detector.scores(pictures)), **network_scores(pictures)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="one folder of photographs for each kind")
    photographs = load(parser.parse_args().folder, (*UNKNOWN_KINDS, *KINDS))
    kinds = strange_images()
    for kind in UNKNOWN_KINDS:
        kinds[kind] = photographs.pixels[photographs.kinds == kind]
    kinds["known clothes"] = photographs.pixels[np.isin(photographs.kinds, list(KINDS))]
    usual = fashion_mnist().test_inputs.numpy()
    for model in MODELS:
        threshold = artifacts.signature(model, DEFAULT_VERSION).ood_threshold
        if threshold is None:
            sys.exit(f"error: {model} {DEFAULT_VERSION} has no references; run: make train MODEL={model}")
        detector = ood.read(artifacts.folder(model, DEFAULT_VERSION))
        began = time.perf_counter()
        for picture in usual[:COUNT]:
            detector.scores(picture[np.newaxis])
        each_us = (time.perf_counter() - began) / COUNT * 1e6
        print(f"{model}: threshold {threshold:.3f}, {each_us:.0f} us for one image")
        network_scores = NetworkScores(model)
        expected = _scores(detector, network_scores, usual)
        for kind, pictures in kinds.items():
            found = _scores(detector, network_scores, pictures)
            areas = "  ".join(f"{name} {separation(expected[name], found[name]):.3f}" for name in found)
            print(f"  {kind:13}  above {(found['served'] > threshold).float().mean():.2f}  AUROC: {areas}")


if __name__ == "__main__":
    main()
