"""Steps around a network that was trained elsewhere, called as a worker calls them (``handlers/steps.py``)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handlers import steps
from handlers.problems import Problem
from models.errors import NetworkError


class ForeignSteps:
    """The two steps on tensors; every error is one of the import."""

    def __init__(self, path: Path, loaded: steps.Steps) -> None:
        self._path, self._steps = path, loaded

    def before(self, examples: Tensor) -> Tensor:
        """The network's inputs, float32 [N, …], of examples [N, *shape].

        Raises:
            NetworkError: the step fails, refuses an example, or returns arrays of several shapes.
        """
        return self._call(self._steps.before, examples)

    def after(self, outputs: Tensor) -> Tensor:
        """The answers, float32 [N, …], of the network's outputs [N, …].

        Raises:
            NetworkError: the step fails, returns arrays of several shapes, or numbers that are not finite.
        """
        answers = self._call(self._steps.after, outputs)
        if not answers.isfinite().all():
            raise NetworkError(f"{self._path}: after() must return finite numbers")
        return answers

    def _call(self, step: Callable[[NDArray[np.float32]], NDArray[np.float32]], values: Tensor) -> Tensor:
        try:
            return torch.from_numpy(step(values.numpy()))
        except (steps.StepsError, Problem) as error:
            cause = f" ({error.__cause__})" if isinstance(error, steps.StepsError) and error.__cause__ else ""
            raise NetworkError(f"{self._path}: {error}{cause}") from error


def load(path: Path, class_name: str) -> ForeignSteps:
    """Read the class.

    Raises:
        NetworkError: the file is missing, cannot be run, or has no such class with the two methods.
    """
    try:
        return ForeignSteps(path, steps.Steps(path, class_name))
    except steps.StepsError as error:
        raise NetworkError(f"--steps: {error}") from error
