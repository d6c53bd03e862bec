"""Training of a network's weights for photographs.

    data set ──► made_photographs, twice ──► train, from the model's own weights ──► views ──► temperature

Half as many of the data set's own pictures stay among the made ones, so that the weights do not forget them. Pictures
that are made of others than those of the training fit the temperature, which so holds for photographs. Right is what is
right for a photograph: a T-shirt may be called T-shirt/top or Shirt, and a sandal any kind of shoe. A picture of the
label Shirt may be of any of three kinds, and Pullover is right for two of them: that counts as two thirds.
"""

from __future__ import annotations

import dataclasses
import time

import torch
from rich.console import Console
from torch import Tensor, nn

from models import made_photographs
from models.calibration import fit_confidence
from models.catalog import Entry, Training
from models.datasets import Dataset
from models.fashion_mnist import KINDS
from models.photograph_network import PhotographNetwork
from models.training import Trained, forward, prepare, train

# Made pictures for each of the data set's. They are made once and not for each epoch, because that takes as long as an
# epoch of the larger network.
_COPIES = 2
# Of these labels only every second picture is made: callers photograph fewer coats and bags than shirts and pullovers,
# while the data set has as many of each.
_RARE = ("Coat", "Bag")


def train_for_photographs(
    entry: Entry, network: nn.Module, dataset: Dataset, settings: Training, seed: int, console: Console
) -> Trained:
    """Train weights for photographs; the same seed on the same machine gives the same ones.

    Args:
        entry: the model.
        network: the trained network, whose weights are the start.
        dataset: the data set of the pictures.
        settings: usually ``entry.photographs``.
        seed: of everything random.
        console: as of ``models.training.train``.

    Returns:
        As of ``models.training.train``, with a ``PhotographNetwork`` and its temperature.

    Raises:
        DataError: as ``models.training.train``.
    """
    started = time.monotonic()
    held_out = settings.validation
    torch.manual_seed(seed)
    pictures, targets = dataset.train_inputs[held_out:], dataset.train_targets[held_out:]
    rare = [entry.labels.index(label) for label in _RARE]
    copies = [_made(pictures, targets, rare) for _ in range(_COPIES)]
    others, other_targets = _made(dataset.train_inputs[:held_out], dataset.train_targets[:held_out], rare)
    pictures = torch.cat([pictures, *(copy for copy, _ in copies)])
    targets = torch.cat([targets, *(labels for _, labels in copies)])
    made = dataclasses.replace(dataset, train_inputs=pictures, train_targets=targets)
    named = dataclasses.replace(entry, name=f"{entry.name} for photographs")
    trained = train(named, made, settings, seed, console, start=network)
    photograph_network = PhotographNetwork(trained.network, entry.input).eval()
    scores = forward(photograph_network, prepare(others, entry.input))
    temperature = fit_confidence(scores, _accepted(entry.labels)[other_targets, scores.argmax(1)])
    seconds = time.monotonic() - started
    return dataclasses.replace(trained, network=photograph_network, temperature=temperature, seconds=seconds)


def _made(pictures: Tensor, targets: Tensor, rare: list[int]) -> tuple[Tensor, Tensor]:
    """Make a picture of each, and of every second one only if its label is ``rare``; with their labels."""
    is_rare = torch.isin(targets, torch.tensor(rare))
    kept = ~is_rare | (is_rare.cumsum(0) % 2 == 0)
    return made_photographs.make(pictures[kept], targets[kept]), targets[kept]


def _accepted(labels: tuple[str, ...]) -> Tensor:
    """How likely each answer (column) is right for a picture of each label (row), float64 ``[labels, labels]``.

    It is the share of the kinds of clothes with that label for which the answer is right, too.
    """
    accepted = torch.eye(len(labels), dtype=torch.float64)
    for row, label in enumerate(labels):
        if rights := [right for right in KINDS.values() if label in right]:
            accepted[row] = torch.tensor([[answer in right for answer in labels] for right in rights]).double().mean(0)
    return accepted
