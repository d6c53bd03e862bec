"""A readable summary of a network."""

from __future__ import annotations

import torchinfo
from torch import nn

from models.catalog import Entry

_FIRST_VALUES = 4


def summary(entry: Entry, network: nn.Module) -> str:
    """Structure, each layer's output shape and parameter count, and each parameter's name, size and first values."""
    layers = torchinfo.summary(
        network,
        input_size=(1, *entry.input.network_shape),
        col_names=("output_size", "num_params"),
        row_settings=("var_names",),
        verbose=0,
    )
    lines = [f"{entry.name}: {entry.description}", "", str(network), "", str(layers), "", "Parameters:"]
    for name, parameter in network.named_parameters():
        values = ", ".join(f"{value:.4f}" for value in parameter.detach().flatten()[:_FIRST_VALUES].tolist())
        lines.append(f"  {name}  {list(parameter.shape)}  {parameter.numel():,}  [{values}, …]")
    return "\n".join(lines)
