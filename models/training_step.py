"""The parts of a training step that are quick and leave the algorithm as it is; docs/internals/performance-log.md has the figures.

Batches of examples, mirrored and shifted at random; bfloat16 products; dropout.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def bfloat16_products() -> Iterator[None]:
    """Let products of float32 matrices be of numbers rounded to bfloat16, where the CPU has instructions for them.

    Sums, weights and all that is stored stay float32. On CUDA they are of TF32 numbers.
    """
    usual = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(usual)


def dropout(inputs: Tensor, rate: float) -> Tensor:
    """Dropout (Srivastava et al. 2014) by 16 random bits an element, where ``F.dropout`` takes four times as long.

    Args:
        inputs: float32 of any shape.
        rate: the share of elements that become 0, from 0 up to below 1; taken to the nearest 65,536th.

    Returns:
        The inputs, with each of the others divided by the share that is kept, so that their mean stays.
    """
    if inputs.device.type != "cpu":
        return F.dropout(inputs, rate)
    dropped = round(rate * 65536)
    bits = torch.empty((inputs.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    drawn = bits.view(torch.int16)[: inputs.numel()].view(inputs.shape)
    return inputs * ((drawn >= dropped - 32768) * (65536 / (65536 - dropped)))
