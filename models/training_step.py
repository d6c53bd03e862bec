"""Faster parts of a training step: bfloat16 products, dropout.

They leave the algorithm unchanged. docs/internals/performance-log.md has the figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F  # noqa: N812 (the field's usual name)
from torch import Tensor


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
