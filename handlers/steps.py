"""A model's own steps, before and after its network: a class with two methods, in a file of the archive.

    example ─► before(example) ─► network ─► after(outputs) ─► temperature, activation

``before`` takes one example as float32 of ``signature.input.shape``, pixels from 0 to 255, and returns one of
``network_shape``, as the network takes it. ``after`` takes what the network returned for it, float32, and returns one
number for each label. Each call has one example, so that an answer cannot depend on the others of a batch.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers import problems

_METHODS = ("before", "after")


class StepsError(Exception):
    """A model's steps cannot be loaded, or one of them failed; the message says which, and the cause is chained."""


class Steps:
    """The two methods of one object, each called for one example after another."""

    def __init__(self, path: Path, class_name: str) -> None:
        """Load the class from a Python file and call it without arguments.

        Raises:
            StepsError: the file cannot be run, or has no such class with the two methods.
        """
        if not path.is_file():
            raise StepsError(f"{path} does not exist")
        spec = importlib.util.spec_from_file_location("model_steps", path)
        if spec is None or spec.loader is None:
            raise StepsError(f"{path} is not a Python file; its name must end in .py")
        module = importlib.util.module_from_spec(spec)
        # Dataclasses look their module up there.
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise StepsError(f"{path} cannot be imported ({type(error).__name__}: {error})") from error
        if not isinstance(kind := getattr(module, class_name, None), type):
            raise StepsError(f"{path} has no class {class_name}")
        try:
            steps = kind()
        except Exception as error:
            raise StepsError(f"{class_name} cannot be called without arguments ({error})") from error
        for name in _METHODS:
            if not callable(getattr(steps, name, None)):
                raise StepsError(f"{class_name} has no method {name}; it needs {' and '.join(_METHODS)}")
        self._before: Callable[[NDArray[np.float32]], Any] = steps.before
        self._after: Callable[[NDArray[np.float32]], Any] = steps.after

    def before(self, examples: NDArray[Any], shape: tuple[int, ...] | None = None) -> NDArray[np.float32]:
        """The network's inputs.

        Args:
            examples: uint8 or float32 ``[N, *signature.input.shape]``; they are not changed.
            shape: of each result; ``None``: that of the first.

        Returns:
            float32 ``[N, *shape]``.

        Raises:
            problems.Unprocessable: the step refused an example with a ``ValueError``, whose text is for the caller.
            StepsError: the step raised another error, or returned something else than numbers of ``shape``.
        """
        try:
            return _each("before", self._before, examples.astype(np.float32), shape)
        except ValueError as error:
            raise problems.Unprocessable(f"the model refuses this input: {error}") from error

    def after(self, outputs: NDArray[np.float32], shape: tuple[int, ...] | None = None) -> NDArray[np.float32]:
        """The answers, float32 ``[N, *shape]``.

        Args:
            outputs: of the network, float32 ``[N, …]``.
            shape: as of ``before``.

        Raises:
            StepsError: the step raised an error, or returned something else than numbers of ``shape``.
        """
        try:
            return _each("after", self._after, outputs.copy(), shape)
        except ValueError as error:
            raise StepsError("the model's step after() raised ValueError") from error


def _each(
    name: str, step: Callable[[NDArray[np.float32]], Any], values: NDArray[np.float32], shape: tuple[int, ...] | None
) -> NDArray[np.float32]:
    results = []
    for value in values:
        try:
            result = step(value)
        except ValueError:
            raise
        except Exception as error:
            raise StepsError(f"the model's step {name}() raised {type(error).__name__}") from error
        results.append(_checked(name, result, shape))
        shape = results[0].shape
    return np.stack(results)


def _checked(name: str, result: Any, shape: tuple[int, ...] | None) -> NDArray[np.float32]:
    is_array = isinstance(result, (np.ndarray, np.generic))
    if not is_array or result.dtype.kind not in "iuf":
        got = result.dtype if is_array else type(result).__name__
        raise StepsError(f"the model's step {name}() must return a NumPy array of numbers, got {got}")
    if not result.ndim or not result.size or shape not in (None, result.shape):
        expected = "x".join(map(str, shape)) if shape else "one or more values"
        got = "x".join(map(str, result.shape)) or "a single number"
        raise StepsError(f"the model's step {name}() must return an array of {expected}, got {got}")
    # What is too large for float32 becomes infinite here, and the answer's check refuses it.
    with np.errstate(over="ignore"):
        # A copy, because a step may fill the same array each time.
        return np.array(result, dtype=np.float32)
