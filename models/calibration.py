"""Calibration of a trained network: the temperature that divides its scores."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the field's usual name)
from torch import Tensor


def fit_temperature(scores: Tensor, targets: Tensor) -> float:
    """The temperature with the least cross-entropy (Guo et al. 2017, "On Calibration of Modern Neural Networks")."""
    log_temperature = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    scores = scores.double()
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(scores / log_temperature.exp(), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return log_temperature.exp().item()
