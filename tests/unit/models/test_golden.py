"""The golden examples of an artifact."""

import numpy as np
import pytest
import torch

from models import golden


@pytest.mark.parametrize(
    ("shape", "count"), [((28, 28), 200), ((3, 512, 512), 5), ((3, 1200, 1200), 1)], ids=["small", "large", "huge"]
)
def test_large_pictures_are_fewer(tmp_path, shape, count):
    inputs = torch.zeros(1, *shape, dtype=torch.uint8).expand(300, *shape)
    golden.write(tmp_path / "golden.npz", inputs, torch.zeros(300, 2))
    with np.load(tmp_path / "golden.npz") as arrays:
        assert (arrays["inputs"].shape, arrays["probabilities"].shape) == ((count, *shape), (count, 2))
