"""What makes a training step quick and leaves the algorithm as it is; docs/performance.md has the figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F  # noqa: N812 (the field's usual name)
from torch import Tensor


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
