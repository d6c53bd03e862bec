"""Numbers from any format become examples: the one place that checks shape, datatype, range and count."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from handlers import limits, problems
from handlers.signature import Signature

PIXEL_MAX = 255


class Examples(NamedTuple):
    """Checked input of one request.

    Attributes:
        values: ``[N, *signature.input.shape]``, N >= 1. Images: uint8, or float32 if the caller sent fractions; both in
            pixel units, 0 to 255. Vectors: float32, finite.
        single: whether the caller sent one example without a batch axis, and so expects one answer and not a list.
    """

    values: NDArray[Any]
    single: bool


def from_array(values: NDArray[Any], signature: Signature) -> Examples:
    """Check an array of any real datatype, byte order and memory order, and convert it to the model's form.

    The shape is that of one example or ``[N, *shape]``. An image's rows may also be joined: ``[H*W]``, ``[N, H*W]``. A
    gray image may have a channel axis of length 1: ``[H, W, 1]``, ``[N, H, W, 1]``, ``[N, 1, H, W]``. The channels of a
    color image may be its last axis.
    The datatype alone decides how an image is read: integers are pixels, 0 to 255, and floats are fractions, 0 to 1.

    Raises:
        problems.Unprocessable: wrong shape or datatype, no example, a value out of range, NaN or infinity.
        problems.TooLarge: more examples than ``example_limit``.
    """
    shaped, single = _shaped(values, signature)
    if shaped.dtype.kind not in "iuf":
        raise problems.Unprocessable(f"values must be integers or floats, got {shaped.dtype}")
    if signature.input.kind != "image":
        return Examples(_features(shaped), single)
    return Examples(_fractions(shaped) if shaped.dtype.kind == "f" else _pixels(shaped), single)


def check_count(count: int, signature: Signature) -> None:
    """Refuse a request with no examples or too many.

    Raises:
        problems.Unprocessable: no examples.
        problems.TooLarge: more than ``example_limit``.
    """
    if count == 0:
        raise problems.Unprocessable("the request holds no examples; send at least one")
    # One example is always allowed, and its request has no time to spare.
    if count > 1 and count > (limit := example_limit(signature)):
        raise problems.TooLarge(f"too many examples in one request ({count}, limit {limit})")


def example_limit(signature: Signature) -> int:
    """The most examples of one request: ``limits.EXAMPLES``, or fewer if they have many values."""
    return min(limits.EXAMPLES, max(1, limits.VALUES // math.prod(signature.input.shape)))


def accepted_shapes(signature: Signature) -> str:
    """The shapes that ``from_array`` accepts, for messages: ``28x28, Nx28x28 or Nx784``."""
    shape = signature.input.shape
    one = "x".join(map(str, shape))
    if len(shape) == 1:
        return f"{one} or Nx{one}"
    return f"{one}, Nx{one} or Nx{math.prod(shape)}"


def _shaped(values: NDArray[Any], signature: Signature) -> tuple[NDArray[Any], bool]:
    shape = signature.input.shape
    if values.shape == shape:
        return values[np.newaxis], True
    if values.shape[1:] == shape:
        check_count(len(values), signature)
        return values, False
    size = math.prod(shape)
    if signature.input.kind == "image" and values.ndim > 2:
        values = _without_channels(values, shape) if len(shape) == 2 else _channels_first(values, shape)
    single = values.shape in (shape, (size,))
    if not single and values.shape[1:] not in (shape, (size,)):
        got = "x".join(map(str, values.shape)) or "a single number"
        raise problems.Unprocessable(f"shape {got} does not fit this model; send {accepted_shapes(signature)}")
    count = 1 if single else values.shape[0]
    check_count(count, signature)
    return values.reshape(count, *shape), single


def _without_channels(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """An image array without its channel axis of length 1; without such an axis, the array itself."""
    if values.ndim <= 4 and values.shape[-3:] == (*shape, 1):
        return values[..., 0]
    return values[:, 0] if values.shape[1:] == (1, *shape) else values


def _channels_first(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """An array of color images with its channels before height and width."""
    are_last = values.shape[-3:] == (*shape[1:], shape[0]) != shape
    return np.moveaxis(values, -1, -3) if are_last and values.ndim <= 4 else values


def _pixels(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.dtype != np.uint8:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > PIXEL_MAX:
            wrong = low if low < 0 else high
            raise problems.Unprocessable(f"integer pixels must be from 0 to {PIXEL_MAX}, got {wrong}")
    return np.ascontiguousarray(values, dtype=np.uint8)


def _fractions(values: NDArray[Any]) -> NDArray[np.float32]:
    low, high = float(values.min()), float(values.max())
    # NaN makes both comparisons false, so this catches it too.
    if not (low >= 0 and high <= 1):
        _refuse_not_finite(low, high)
        wrong = low if low < 0 else high
        raise problems.Unprocessable(
            f"float pixels must be from 0 to 1, got {wrong:g}; send pixels from 0 to {PIXEL_MAX} as integers"
        )
    scaled = values.astype(np.float32, order="C")
    scaled *= PIXEL_MAX
    return scaled


def _features(values: NDArray[Any]) -> NDArray[np.float32]:
    # A float64 beyond float32's range becomes infinite here and is refused below, so numpy's warning is not needed.
    with np.errstate(over="ignore"):
        features = values.astype(np.float32, order="C")
    _refuse_not_finite(float(features.min()), float(features.max()))
    return features


def _refuse_not_finite(low: float, high: float) -> None:
    for value in (low, high):
        if not math.isfinite(value):
            name = "NaN" if math.isnan(value) else "infinity"
            raise problems.Unprocessable(f"every value must be finite as float32, got {name}")
