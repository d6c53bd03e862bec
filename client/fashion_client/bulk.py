"""A batch of arrays as one result: what both clients do before and after they send its pieces.

The pieces are answered in ``.npy``, which holds no labels; a first request in JSON, for one example, tells them and
meets a wrong key or model before anything large is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from fashion_client.errors import AnswerError, InputError
from fashion_client.inputs import Array, as_batch
from fashion_client.results import Prediction, Predictions


def are_alike(examples: Sequence[Any]) -> TypeGuard[Sequence[Array]]:
    """Whether the examples are arrays that one batch can hold.

    Types must be equal because they carry meaning: integers are pixels from 0 to 255, floats from 0 to 1.
    """
    arrays = [example for example in examples if isinstance(example, np.ndarray)]
    return len(arrays) == len(examples) > 0 and len({(array.shape, array.dtype) for array in arrays}) == 1


def stacked(examples: Sequence[Array], example_shape: tuple[int, ...]) -> Array:
    """Arrays that are alike, each one example, as the batch ``[N, *example_shape]``.

    Raises:
        InputError: an array holds something else than one example.
    """
    _, single = as_batch(examples[0], example_shape)
    if not single:
        raise InputError(f"each array of a list has to be one example, got {list(examples[0].shape)}")
    return np.stack(examples).reshape(-1, *example_shape)


def labels(first: Prediction) -> tuple[str, ...]:
    """The model's labels in order, from a prediction that names them all.

    Raises:
        AnswerError: they are not in the model's order.
    """
    names = tuple(first.probabilities)
    if first.class_index is not None and names.index(first.label) != first.class_index:
        raise AnswerError(f"class {first.class_index} is {first.label!r}, but another label stands there: {names}")
    return names


def joined(first: Prediction, rows: Sequence[NDArray[np.float32]], top_k: int | None) -> Predictions:
    """The pieces' probabilities, in order, as one result."""
    return Predictions(labels(first), np.concatenate(rows), independent=first.class_index is None, top_k=top_k)


def nothing(top_k: int | None) -> Predictions:
    """The result for no examples: it needs no service, and knows no labels."""
    return Predictions((), np.zeros((0, 0), np.float32), top_k=top_k)
