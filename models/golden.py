"""Golden examples: the first test examples and the network's answers to them, packed in the archive.

``serving/torchserve/golden_check.py`` compares a served version with them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

# Enough to detect a wrong network, few enough to check at every rollout.
COUNT = 200
# Pixels or numbers of all of them: large pictures would make archives large, and their check slow.
_VALUES = 4 * 1024 * 1024


def write(path: Path, inputs: Tensor, probabilities: Tensor) -> None:
    """Write ``golden.npz``.

    Args:
        path: of the file.
        inputs: the test set, uint8 or float32 [N, *shape].
        probabilities: float32 [N, labels]; or the numbers of a network that returns numbers.
    """
    count = min(COUNT, max(1, _VALUES // inputs[0].numel()))
    np.savez(path, inputs=inputs[:count].numpy(), probabilities=probabilities[:count].numpy())
