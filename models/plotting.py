"""The pictures of an artifact: training curves, confusion matrix, worst mistakes."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from models.training import Epoch

# Leave out matplotlib's version, so that equal pictures are equal files.
_METADATA = {"Software": None}
_DPI = 110


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=_DPI, metadata=_METADATA)
    plt.close(figure)


def curves(history: list[Epoch], best_epoch: int, title: str, path: Path) -> None:
    """Loss and validation accuracy by epoch, the kept epoch marked."""
    epochs = range(1, len(history) + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot(epochs, [epoch.train_loss for epoch in history], label="training")
    left.plot(epochs, [epoch.validation_loss for epoch in history], label="validation")
    left.set(xlabel="epoch", ylabel="loss", title=f"{title}: loss")
    left.legend()
    right.plot(epochs, [epoch.validation_accuracy for epoch in history], color="C1", label="validation")
    right.axvline(best_epoch + 1, color="0.5", linestyle=":", label=f"kept: epoch {best_epoch + 1}")
    right.set(xlabel="epoch", ylabel="accuracy", title=f"{title}: accuracy")
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    _save(figure, path)


def confusion_matrix(matrix: list[list[int]] | list[list[list[int]]], labels: tuple[str, ...], path: Path) -> None:
    """One matrix for classes, or one 2x2 matrix per independent label; counts, shaded by share of the row."""
    counts = np.array(matrix)
    if counts.ndim == 2:
        size = (2.5 + 0.55 * len(labels),) * 2
        panels = [("Confusion matrix (test set)", labels, counts)]
    else:
        size = (3.5 * len(labels), 3.5)
        panels = [(label, ("no", "yes"), part) for label, part in zip(labels, counts, strict=True)]
    figure, grid = plt.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)
    for axes, (title, names, part) in zip(grid.flat, panels, strict=True):
        shares = part / np.maximum(part.sum(1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            color = "white" if share > 0.5 else "black"
            axes.text(column, row, str(part[row, column]), ha="center", va="center", fontsize=8, color=color)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted", ylabel="true", title=title)
    _save(figure, path)


def errors(inputs: Tensor, truth: list[str], predicted: list[str], confidence: list[float], path: Path) -> None:
    """A grid of misclassified inputs, each with both labels and the probability of the wrong one.

    Images uint8 [N, H, W] or [N, 3, H, W] are shown as they are, vectors float32 [N, features] as bars,
    and other arrays as the line of their values.
    """
    columns = 6
    rows = max(1, -(-len(inputs) // columns))
    figure, grid = plt.subplots(rows, columns, figsize=(2 * columns, 2.4 * rows), layout="constrained", squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, values, true, guess, share in zip(grid.flat, inputs.numpy(), truth, predicted, confidence, strict=False):
        if values.dtype == np.uint8:
            axes.imshow(values.transpose(1, 2, 0) if values.ndim == 3 else values, cmap="gray", vmin=0, vmax=255)
        else:
            axes.axis("on")
            if values.ndim == 1:
                axes.bar(range(len(values)), values)
            else:
                axes.plot(values.ravel())
            axes.axhline(0, color="0.5", linewidth=0.8)
            axes.set_xticks([])
            axes.tick_params(labelsize=7)
        axes.set_title(f"{true}\npredicted {guess} ({share:.2f})", fontsize=8)
    figure.suptitle("Worst mistakes on the test set")
    _save(figure, path)
