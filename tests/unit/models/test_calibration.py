"""The fitted temperature."""

from __future__ import annotations

import pytest
import torch

from models.calibration import fit_temperature


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.5])
def test_the_fit_recovers_the_temperature_that_made_the_labels(true_temperature):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20000, 10, generator=generator) * 3
    targets = torch.multinomial((scores / true_temperature).softmax(1), 1, generator=generator).flatten()
    assert fit_temperature(scores, targets) == pytest.approx(true_temperature, rel=0.05)
