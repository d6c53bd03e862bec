"""Scoring a network on test data with torchmetrics."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the field's usual name)
from torch import Tensor
from torchmetrics.functional import (
    calibration_error,
    confusion_matrix,
    f1_score,
    mean_absolute_error,
    mean_squared_error,
    precision,
    r2_score,
    recall,
)

from models.training import correct

# Examples that are compared with all others at once.
_ROWS = 1024
# The usual number of bins of the expected calibration error (Guo et al. 2017).
ERROR_BINS = 15


def evaluate(probabilities: Tensor, targets: Tensor, activation: str, labels: tuple[str, ...]) -> dict[str, Any]:
    """The quality figures of ``metrics.json``.

    Args:
        probabilities: float32 [N, labels].
        targets: int64 [N] for ``softmax``, float32 [N, labels] of 0 and 1 for ``sigmoid``.
        activation: ``softmax`` or ``sigmoid``.
        labels: names in order.

    Returns:
        ``test_accuracy`` (share of right decisions, 0-1), ``expected_calibration_error`` (``ERROR_BINS``, L1),
        ``per_class`` precision, recall and F1 by label, and ``confusion_matrix``: rows are the truth, columns the
        prediction; for independent labels one 2x2 matrix per label.
    """
    count = len(labels)
    softmax = activation == "softmax"
    kind = "multiclass" if softmax else "multilabel"
    task: dict[str, Any] = {"task": kind, "num_classes": count, "num_labels": count}
    targets = targets.long()
    # For calibration, each independent label is a separate decision.
    calibration = calibration_error(
        probabilities if softmax else probabilities.flatten(),
        targets.flatten(),
        task="multiclass" if softmax else "binary",
        n_bins=ERROR_BINS,
        num_classes=count,
    )
    per_class = {
        name: function(probabilities, targets, average="none", **task)
        for name, function in (("precision", precision), ("recall", recall), ("f1", f1_score))
    }
    return {
        "test_accuracy": correct(probabilities, targets, activation).double().mean().item(),
        "expected_calibration_error": calibration.item(),
        "per_class": {
            label: {name: round(values[index].item(), 6) for name, values in per_class.items()}
            for index, label in enumerate(labels)
        },
        "confusion_matrix": confusion_matrix(probabilities, targets, **task).tolist(),
    }


def evaluate_numbers(answers: Tensor, targets: Tensor, labels: tuple[str, ...]) -> dict[str, Any]:
    """The quality figures of numbers.

    Args:
        answers, targets: float32 [N, values].
        labels: names of the values, in order.

    Returns:
        ``mean_absolute_error``, ``root_mean_squared_error`` and ``r2`` (the share of the targets' variance that the
        answers explain, at most 1; the mean over the values), and ``per_value`` the same by label.
    """

    def figures(answers: Tensor, targets: Tensor) -> dict[str, float]:
        return {
            "mean_absolute_error": mean_absolute_error(answers, targets).item(),
            "root_mean_squared_error": mean_squared_error(answers, targets, squared=False).item(),
            "r2": r2_score(answers, targets).item(),
        }

    answers, targets = answers.double(), targets.double()
    per_value = {label: figures(answers[:, index], targets[:, index]) for index, label in enumerate(labels)}
    return {**figures(answers, targets), "per_value": per_value}


def evaluate_embedding(answers: Tensor, targets: Tensor) -> dict[str, Any]:
    """The quality figures of an embedding.

    Args:
        answers: float32 [N, values], N >= 2.
        targets: int64 [N], the class of each example.

    Returns:
        ``nearest_neighbor_accuracy``: the share of the examples whose nearest other one, by cosine, is of their class.
    """
    directions = F.normalize(answers, dim=1)
    nearest = []
    for start in range(0, len(directions), _ROWS):
        similarity = directions[start : start + _ROWS] @ directions.T
        rows = torch.arange(len(similarity))
        # An example is nearest to itself.
        similarity[rows, start + rows] = -torch.inf
        nearest.append(similarity.argmax(1))
    right = targets[torch.cat(nearest)] == targets
    return {"nearest_neighbor_accuracy": right.double().mean().item()}


def worst_mistakes(probabilities: Tensor, targets: Tensor, activation: str, count: int) -> tuple[Tensor, Tensor]:
    """The wrong answers with the highest confidence, highest first.

    Returns:
        Indices int64 [K], K <= ``count``, and for each the probability (0-1) that the network gave to its wrong
        decision.
    """
    wrong = ~correct(probabilities, targets, activation)
    if activation == "softmax":
        confidence = probabilities.amax(1)
    else:
        confidence = torch.where(wrong, torch.maximum(probabilities, 1 - probabilities), 0).amax(1)
        wrong = wrong.any(1)
    indices = torch.nonzero(wrong).flatten()
    indices = indices[confidence[indices].argsort(descending=True)][:count]
    return indices, confidence[indices]
