"""Golden examples: the first test examples and the network's probabilities for them, packed in the archive.

``serving/torchserve/golden_check.py`` compares a served version with them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

# Enough to detect a wrong network, few enough to check at every rollout.
COUNT = 200


def write(path: Path, inputs: Tensor, probabilities: Tensor) -> None:
    """Write ``golden.npz``.

    Args:
        path: of the file.
        inputs: the test set, uint8 or float32 [N, *shape].
        probabilities: float32 [N, labels].
    """
    np.savez(path, inputs=inputs[:COUNT].numpy(), probabilities=probabilities[:COUNT].numpy())
