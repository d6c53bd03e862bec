"""Export a network to TorchScript, and check that both give the same probabilities."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from models.errors import ExportError
from models.training import forward, probabilities

# Largest difference of a probability: above float32 rounding, far below any change of a weight that matters.
TOLERANCE = 1e-5


def export(network: nn.Module, examples: Tensor, activation: str, path: Path) -> None:
    """Script ``network`` (not traced: the batch size stays free), check it and write it to ``path``.

    Args:
        network: in evaluation mode on the CPU.
        examples: prepared inputs, float32 [N, *network_shape], that the check uses.
        activation: how scores become the probabilities that are compared.
        path: the TorchScript file.

    Raises:
        ExportError: a probability differs by more than 1e-5, or a batch size fails; nothing is written.
    """
    scripted = torch.jit.script(network)
    expected = probabilities(forward(network, examples), activation)
    actual = probabilities(forward(scripted, examples), activation)
    difference = (expected - actual).abs().max().item()
    if difference > TOLERANCE:
        raise ExportError(
            f"TorchScript's and the network's probabilities differ by {difference:.2g}; the limit is {TOLERANCE:g}"
        )
    for size in (1, 2, 7):
        shape = tuple(forward(scripted, examples[:size]).shape)
        if shape != (needed := (size, expected.shape[1])):
            raise ExportError(f"TorchScript must answer a batch of {size} with shape {needed}, got {shape}")
    torch.jit.save(scripted, path)
