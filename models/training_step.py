"""Faster parts of a training step: augmented batches, bfloat16 products, dropout.

They leave the algorithm unchanged. docs/internals/performance-log.md has the figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def bfloat16_products() -> Iterator[None]:
    """Round the factors of float32 matrix products to bfloat16, if the CPU has instructions for it; to TF32 on CUDA.

    Sums, weights and all stored values stay float32.
    """
    usual = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(usual)


def dropout(inputs: Tensor, rate: float) -> Tensor:
    """Dropout (Srivastava et al. 2014) from 16 random bits per element, which is faster than ``F.dropout`` on a CPU.

    Args:
        inputs: float32 of any shape.
        rate: share of elements set to 0, at least 0 and below 1; rounded to a multiple of 1/65,536.

    Returns:
        The inputs, with the other elements divided by the kept share, so that the mean stays the same.
    """
    if inputs.device.type != "cpu":
        return F.dropout(inputs, rate)
    dropped = round(rate * 65536)
    bits = torch.empty((inputs.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    drawn = bits.view(torch.int16)[: inputs.numel()].view(inputs.shape)
    return inputs * ((drawn >= dropped - 32768) * (65536 / (65536 - dropped)))
