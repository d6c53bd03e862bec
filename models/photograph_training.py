"""Training of a network's weights for photographs.

    data set ──► made_photographs, twice ──► train, from the model's own weights ──► views ──► temperature

Half as many of the data set's own pictures stay among the made ones, so that the weights do not forget them. Pictures
that the training never sees fit the temperature, which so holds for photographs.
"""

from __future__ import annotations

import dataclasses
import time

import torch
from rich.console import Console
from torch import Tensor, nn

from models import made_photographs
from models.calibration import fit_temperature
from models.catalog import Entry, Training
from models.datasets import Dataset
from models.photograph_network import PhotographNetwork
from models.training import Trained, forward, prepare, train

# Made pictures for each of the data set's. They are made once and not for each epoch, because that takes as long as an
# epoch of the larger network.
_COPIES = 2


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
    pictures, targets = _with_made(dataset.train_inputs[held_out:], dataset.train_targets[held_out:], _COPIES)
    others, other_targets = _with_made(dataset.train_inputs[:held_out], dataset.train_targets[:held_out], 1)
    made = dataclasses.replace(dataset, train_inputs=pictures, train_targets=targets)
    named = dataclasses.replace(entry, name=f"{entry.name} for photographs")
    trained = train(named, made, settings, seed, console, start=network)
    photograph_network = PhotographNetwork(trained.network, entry.input).eval()
    temperature = fit_temperature(forward(photograph_network, prepare(others, entry.input)), other_targets)
    seconds = time.monotonic() - started
    return dataclasses.replace(trained, network=photograph_network, temperature=temperature, seconds=seconds)


def _with_made(pictures: Tensor, targets: Tensor, copies: int) -> tuple[Tensor, Tensor]:
    made = [made_photographs.make(pictures, targets) for _ in range(copies)]
    return torch.cat([pictures, *made]), targets.repeat(copies + 1)
