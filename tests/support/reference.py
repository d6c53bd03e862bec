"""The images that every client sends, and comparisons with the expected answers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np
from PIL import Image

from serving.settings import ROOT
from tests.support.signatures import LABELS

VERSION = "1.0"
TIMEOUT = 30  # seconds for one request; the gateway waits 20 s for a prediction


def _pixels() -> np.ndarray:
    with Image.open(ROOT / "examples/ankle_boot.png") as picture:
        boot = np.asarray(picture)
    return np.stack([boot, boot[:, ::-1], boot.T, np.roll(boot, 5, 0), boot // 2])


PIXELS = _pixels()


def assert_same(probabilities: Any, expected: np.ndarray) -> None:
    """Equal except for the last bits: ``expected`` comes from the original network, not from the optimized one."""
    np.testing.assert_allclose(np.asarray(probabilities).reshape(expected.shape), expected, atol=1e-5)


def assert_classes(answered: np.ndarray, expected: np.ndarray, count: int) -> None:
    """``answered``, [N, count], has the most probable classes as Triton's texts ``value:index:label``."""
    assert answered.shape == (len(expected), count)
    for texts, probabilities in zip(answered.tolist(), expected, strict=True):
        # Triton's client returns JSON strings as text and binary ones as bytes.
        split = [(each if isinstance(each, str) else each.decode()).split(":") for each in texts]
        best = np.argsort(-probabilities, kind="stable")[:count].tolist()
        assert [(int(index), label) for _, index, label in split] == [(index, LABELS[index]) for index in best]
        np.testing.assert_allclose([float(value) for value, _, _ in split], probabilities[best], atol=1e-5)


def labels(expected: np.ndarray) -> list[str]:
    """The label of each row of probabilities."""
    return [LABELS[index] for index in expected.argmax(1)]


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine of an asynchronous client, with a time limit."""
    return asyncio.run(asyncio.wait_for(coroutine, TIMEOUT))
