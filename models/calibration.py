"""Calibration of a trained network: the temperature that divides its scores."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 (the field's usual name)
from torch import Tensor


def fit_temperature(scores: Tensor, targets: Tensor) -> float:
    """The temperature with the least cross-entropy (Guo et al. 2017, "On Calibration of Modern Neural Networks").

    Args:
        scores: ``[N, labels]``.
        targets: indices of the right labels, int64 ``[N]``.
    """
    return _fit(scores, lambda cooled: F.cross_entropy(cooled, targets))


def fit_confidence(scores: Tensor, rightness: Tensor) -> float:
    """The temperature with which the largest probability is nearest to the chance that an answer is right.

    The same as ``fit_temperature`` for answers that may be right without being the one right label.

    Args:
        scores: ``[N, labels]``.
        rightness: the chance that the label with the largest score is right, 0 to 1, float64 ``[N]``.
    """
    return _fit(scores, lambda cooled: F.binary_cross_entropy(cooled.softmax(1).amax(1).clamp(max=1), rightness))


def _fit(scores: Tensor, loss_of: Callable[[Tensor], Tensor]) -> float:
    """The temperature with the least loss of the scores that it divides, float64 ``[N, labels]``."""
    log_temperature = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    scores = scores.double()
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = loss_of(scores / log_temperature.exp())
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return log_temperature.exp().item()
