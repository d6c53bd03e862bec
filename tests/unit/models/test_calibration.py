"""The fitted temperature."""

from __future__ import annotations

import pytest
import torch

from models.calibration import fit_confidence, fit_temperature


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.5])
def test_the_fit_recovers_the_temperature_that_made_the_labels(true_temperature):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20000, 10, generator=generator) * 3
    targets = torch.multinomial((scores / true_temperature).softmax(1), 1, generator=generator).flatten()
    assert fit_temperature(scores, targets) == pytest.approx(true_temperature, rel=0.05)
    is_right = scores.argmax(1) == targets
    assert fit_confidence(scores, is_right.double()) == pytest.approx(true_temperature, rel=0.05)


def test_answers_that_are_right_more_often_become_more_confident():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20000, 10, generator=generator)
    chances = scores.softmax(1).amax(1)
    is_right = torch.rand(len(scores), generator=generator) < chances + 0.3
    temperature = fit_confidence(scores, is_right.double())
    assert temperature < 0.8
    fitted = (scores / temperature).softmax(1).amax(1)
    assert fitted.mean().item() == pytest.approx(is_right.float().mean().item(), abs=0.08)
