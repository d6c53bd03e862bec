"""Examples become the network's input, in training and in serving: padding, scaling, shape."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from handlers import torchscript
from handlers.signature import Input

_CPU = torch.device("cpu")
# Examples per network call, and the values of the network's inputs in one; more would not fit into the CPU's cache.
_CHUNK_EXAMPLES = 256
_CHUNK_VALUES = 1024 * 1024


class Preparation:
    """Prepares examples for one network.

    Attributes:
        gain, bias: as in the signature; one for each channel or feature is a tensor that fits an example's axes.
        chunk: up to this many examples go through the network in one call.
    """

    def __init__(self, spec: Input, device: torch.device = _CPU) -> None:
        """Set up the steps of ``spec``; the results are on ``device``."""
        self.gain, self.bias = (_constant(value, spec, device) for value in (spec.gain, spec.bias))
        self._has_bias = spec.bias != 0
        self._padding = (spec.padding,) * 4 if spec.padding else None
        self._shape = spec.network_shape
        self._device = device
        self.chunk = max(1, min(_CHUNK_EXAMPLES, _CHUNK_VALUES // math.prod(spec.network_shape)))
        # A whole chunk needs no padding.
        while torchscript.padded_count(self.chunk) != self.chunk:
            self.chunk -= 1

    def scale(self, values: Tensor) -> Tensor:
        """Pad and scale examples ``[N, *shape]`` to float32; padding makes images larger."""
        values = values.to(self._device)
        if self._padding:
            values = torch.nn.functional.pad(values, self._padding)
        values = values.to(torch.float32) * self.gain
        if self._has_bias:
            values += self.bias
        return values

    def __call__(self, values: Tensor) -> Tensor:
        """Examples ``[N, *shape]`` as the network's input, float32 ``[N, *network_shape]``."""
        return self.scale(values).reshape(-1, *self._shape)


def _constant(value: float | tuple[float, ...], spec: Input, device: torch.device) -> float | Tensor:
    if not isinstance(value, tuple):
        return value
    return torch.tensor(value, dtype=torch.float32, device=device).reshape(-1, *(1 for _ in spec.shape[1:]))
