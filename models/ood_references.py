"""What an archive holds to compute out-of-distribution scores: pictures of the training data, and a threshold."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handlers.outputs.ood import Detector, reduced

# 200 kB in the archive. Three times as many raise no figure of docs/photographs.md by more than 0.02.
_COUNT = 1000
# Share of the test set that lies above the threshold.
_ABOVE = 0.05


def choose(inputs: Tensor, seed: int) -> NDArray[np.uint8]:
    """Choose references among training images, uint8 ``[N, H, W]``; returned as ``ood.reduced`` does."""
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    return reduced(inputs[order[:_COUNT]].numpy())


def threshold(references: NDArray[np.uint8], test_inputs: Tensor) -> float:
    """The score that ``_ABOVE`` of the test images, uint8 ``[N, H, W]``, exceed."""
    return float(np.quantile(Detector(references).scores(test_inputs.numpy()), 1 - _ABOVE))
