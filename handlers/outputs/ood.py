"""The out-of-distribution score of an image: how unlike the training data it is, from 0 to 1.

    image ──► half the height and width ──► Pearson correlation with each reference ──► 1 - the largest

The distance to the nearest neighbor, as in Sun, Ming, Zhu, Li 2022, "Out-of-Distribution Detection with Deep Nearest
Neighbors", though between pictures and not between the network's features: docs/photographs.md compares both. A picture
of one color correlates with nothing, so its score is 1.

Training stores the references and the threshold (``models/ood_references.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.signature import OOD_REFERENCES_FILE_NAME, SignatureError

# Below it a vector has no direction: a picture of one color, up to rounding.
_LEAST_NORM = 1e-3


def reduced(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures ``[N, H, W]`` at half their height and width; an odd last row or column is left out."""
    count, height, width = pictures.shape[0], pictures.shape[1] // 2, pictures.shape[2] // 2
    blocks = pictures[:, : 2 * height, : 2 * width].reshape(count, height, 2, width, 2)
    means: NDArray[np.uint8] = blocks.mean((2, 4)).round().astype(np.uint8)
    return means


class Detector:
    """Computes the score of images.

    Args:
        references: pictures of the training data, as ``reduced`` returns them.
    """

    def __init__(self, references: NDArray[np.uint8]) -> None:
        self._references = _directions(references).T

    def scores(self, pictures: NDArray[Any]) -> NDArray[np.float32]:
        """The scores, float32 ``[N]``, of pixels 0-255 ``[N, H, W]``; no score depends on the other pictures."""
        correlations = _directions(reduced(pictures.astype(np.uint8))) @ self._references
        scores: NDArray[np.float32] = (1 - correlations.max(1)).clip(0, 1)
        return scores


def read(folder: Path) -> Detector:
    """The detector of an archive.

    Raises:
        SignatureError: its references are missing or unreadable.
    """
    path = folder / OOD_REFERENCES_FILE_NAME
    try:
        return Detector(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise SignatureError(f"{path} cannot be read: {error}") from error


def _directions(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Each picture less its mean, as a vector of length 1; a picture of one color as zeros. ``[N, pixels]``."""
    values = pictures.reshape(len(pictures), -1).astype(np.float32)
    values -= values.mean(1, keepdims=True)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(norms > _LEAST_NORM, values / np.maximum(norms, _LEAST_NORM), 0).astype(np.float32)
