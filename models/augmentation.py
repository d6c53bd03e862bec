"""Augmented batches of a training: inputs mirrored and shifted at random.

docs/internals/performance-log.md has the figures.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the field's usual name)
from torch import Tensor

from models.catalog import Training


class Batches:
    """Inputs by index, mirrored and shifted at random as the settings say.

    Random numbers are drawn on the CPU, so that all devices use the same ones. Images are stored twice, plain and
    mirrored, with their edges repeated outwards. Every shift is a window into one of the two, so that selecting,
    mirroring and shifting are a single copy.
    """

    def __init__(self, inputs: Tensor, settings: Training, generator: torch.Generator) -> None:
        """Store float32 inputs ``[N, ...]``; mirroring and shifting need ``[N, H, W]`` or ``[N, 1, H, W]``."""
        self._inputs = inputs
        self._flip, self._reach, self._generator = settings.flip, settings.shift, generator
        if settings.flip or settings.shift:
            count, (height, width) = len(inputs), inputs.shape[-2:]
            framed = F.pad(inputs.reshape(count, 1, height, width), (settings.shift,) * 4, mode="replicate")[:, 0]
            both = torch.stack([framed, framed.flip(-1)] if settings.flip else [framed])
            self._windows = both.unfold(2, height, 1).unfold(3, width, 1)

    def __getitem__(self, chosen: Tensor) -> Tensor:
        """The inputs at the indices int64 ``[M]``, augmented anew; float32 ``[M, ...]``, images ``[M, H, W]``."""
        if not (self._flip or self._reach):
            return self._inputs[chosen]
        count, device = len(chosen), chosen.device
        down = across = mirrored = torch.zeros(count, dtype=torch.int64)
        if self._reach:
            down, across = torch.randint(0, 2 * self._reach + 1, (2, count), generator=self._generator)
        if self._flip:
            mirrored = (torch.rand(count, generator=self._generator) < 0.5).long()
            across = torch.where(mirrored == 1, 2 * self._reach - across, across)
        return self._windows[mirrored.to(device), chosen, down.to(device), across.to(device)]
