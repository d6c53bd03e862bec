"""Scoring a network on test data with torchmetrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import (
    BinaryCalibrationError,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MultilabelConfusionMatrix,
    MultilabelF1Score,
    MultilabelPrecision,
    MultilabelRecall,
)

# The usual number of bins (Guo et al. 2017).
CALIBRATION_BINS = 15


def evaluate(probabilities: Tensor, targets: Tensor, activation: str, labels: tuple[str, ...]) -> dict[str, Any]:
    """The quality figures of ``metrics.json``.

    Args:
        probabilities: float32 [N, labels].
        targets: int64 [N] for ``softmax``, float32 [N, labels] of 0 and 1 for ``sigmoid``.
        activation: ``softmax`` or ``sigmoid``.
        labels: names in order.

    Returns:
        ``test_accuracy`` (share of right decisions, 0-1), ``expected_calibration_error`` (15 bins, L1),
        ``per_class`` precision, recall and F1 by label, and ``confusion_matrix``: rows are the truth, columns the
        prediction; for independent labels one 2x2 matrix a label.
    """
    count = len(labels)
    per_class: dict[str, Tensor]
    if activation == "softmax":
        accuracy = (probabilities.argmax(1) == targets).double().mean()
        calibration = MulticlassCalibrationError(count, n_bins=CALIBRATION_BINS, norm="l1")(probabilities, targets)
        confusion = MulticlassConfusionMatrix(count)(probabilities, targets)
        per_class = {
            "precision": MulticlassPrecision(count, average=None)(probabilities, targets),
            "recall": MulticlassRecall(count, average=None)(probabilities, targets),
            "f1": MulticlassF1Score(count, average=None)(probabilities, targets),
        }
    else:
        truth = targets.long()
        accuracy = ((probabilities >= 0.5).long() == truth).double().mean()
        calibration = BinaryCalibrationError(CALIBRATION_BINS, norm="l1")(probabilities.flatten(), truth.flatten())
        confusion = MultilabelConfusionMatrix(count)(probabilities, truth)
        per_class = {
            "precision": MultilabelPrecision(count, average=None)(probabilities, truth),
            "recall": MultilabelRecall(count, average=None)(probabilities, truth),
            "f1": MultilabelF1Score(count, average=None)(probabilities, truth),
        }
    return {
        "test_accuracy": accuracy.item(),
        "expected_calibration_error": calibration.item(),
        "per_class": {
            label: {name: round(values[index].item(), 6) for name, values in per_class.items()}
            for index, label in enumerate(labels)
        },
        "confusion_matrix": confusion.tolist(),
    }


def worst_mistakes(probabilities: Tensor, targets: Tensor, activation: str, count: int) -> tuple[Tensor, Tensor]:
    """The wrong answers that the network was surest of, surest first.

    Returns:
        Indices int64 [K], K <= ``count``, and for each the probability (0-1) that the network gave to its wrong
        decision.
    """
    if activation == "softmax":
        sureness, predicted = probabilities.max(1)
        wrong = predicted != targets
    else:
        mistaken = (probabilities >= 0.5) != (targets >= 0.5)
        sureness = torch.where(mistaken, torch.maximum(probabilities, 1 - probabilities), 0).amax(1)
        wrong = mistaken.any(1)
    indices = torch.nonzero(wrong).flatten()
    indices = indices[sureness[indices].argsort(descending=True)][:count]
    return indices, sureness[indices]
