"""Batches of training examples, mirrored and shifted at random; a batch at a time, so no Python runs per example."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the field's usual name)
from torch import Tensor

from models.catalog import Training


class Batches:
    """Inputs by their numbers, mirrored and shifted as the settings say.

    The draws come from the CPU, the same for every device. Images lie there twice, as they are and mirrored, with their
    edges repeated outwards, and every shift is a window into one of the two: choosing, mirroring and shifting are a
    single copy.
    """

    def __init__(self, inputs: Tensor, settings: Training, generator: torch.Generator) -> None:
        """Take inputs float32 ``[N, ...]``, for mirroring and shifting ``[N, H, W]`` or ``[N, 1, H, W]``."""
        self._inputs = inputs
        self._flip, self._reach, self._generator = settings.flip, settings.shift, generator
        if settings.flip or settings.shift:
            count, (height, width) = len(inputs), inputs.shape[-2:]
            framed = F.pad(inputs.reshape(count, 1, height, width), (settings.shift,) * 4, mode="replicate")[:, 0]
            both = torch.stack([framed, framed.flip(-1)] if settings.flip else [framed])
            self._windows = both.unfold(2, height, 1).unfold(3, width, 1)

    def __getitem__(self, chosen: Tensor) -> Tensor:
        """Those that ``chosen``, int64 ``[M]``, names, anew: float32 ``[M, ...]``, images always ``[M, H, W]``."""
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
