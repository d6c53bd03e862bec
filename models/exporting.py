"""Weights to TorchScript, checked against the network that they came from."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from models.errors import ExportError
from models.training import forward, probabilities

TOLERANCE = 1e-5


def export(network: nn.Module, examples: Tensor, activation: str, path: Path) -> None:
    """Script ``network`` (not traced: the batch size stays free), check it and write it to ``path``.

    Args:
        network: in evaluation mode on the CPU.
        examples: prepared inputs, float32 [N, *network_shape], that the check uses.
        activation: how scores become probabilities, which are what is compared.
        path: the TorchScript file.

    Raises:
        ExportError: a probability differs by more than 1e-5, or a batch size fails; nothing is written.
    """
    scripted = torch.jit.script(network)
    expected = probabilities(forward(network, examples), activation)
    answered = probabilities(forward(scripted, examples), activation)
    difference = (expected - answered).abs().max().item()
    if difference > TOLERANCE:
        raise ExportError(
            f"TorchScript and network differ by {difference:.2g} in a probability (at most {TOLERANCE:g})"
        )
    for size in (1, 2, 7):
        shape = tuple(forward(scripted, examples[:size]).shape)
        if shape != (size, expected.shape[1]):
            raise ExportError(f"TorchScript answers a batch of {size} with shape {shape}")
    torch.jit.save(scripted, path)
