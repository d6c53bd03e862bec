"""Convert examples to request bodies.

path, bytes      sent unchanged; the service detects the format
picture          any object with Pillow's ``save``; sent as PNG
numpy array      sent as ``.npy``, which holds shape and type
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fashion_client.errors import InputError

NPY = "application/x-npy"

# Arrays are sent in pieces of at most this size. A service is fastest with 1024 images of 28x28 (0.8 MB) per request.
# The limit in bytes matters for wide types; it is below TorchServe's default limit of 6,553,500 bytes.
PIECE_EXAMPLES = 1024
PIECE_BYTES = 6_000_000


@runtime_checkable
class Picture(Protocol):
    """The part of ``PIL.Image.Image`` used here; a protocol, so that this package does not depend on Pillow."""

    def save(self, fp: Any, format: str | None = None, /, **params: Any) -> None:
        """Write the picture to a binary file object."""


Encoded: TypeAlias = str | os.PathLike[str] | bytes | Picture
Array: TypeAlias = NDArray[Any]
Example: TypeAlias = Encoded | Array


def encode(example: Example) -> tuple[bytes, str | None]:
    """The body of a request for one example, and its content type; with None the service detects the format.

    Raises:
        InputError: the file cannot be read, or the object is not an example.
    """
    if isinstance(example, np.ndarray):
        return npy(example), NPY
    if isinstance(example, bytes):
        return example, None
    if isinstance(example, (str, os.PathLike)):
        try:
            return Path(example).read_bytes(), None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"{os.fspath(example)}: {reason}") from error
    if isinstance(example, Picture):
        file = io.BytesIO()
        try:
            example.save(file, "PNG")
        except (OSError, ValueError) as error:
            raise InputError(f"the picture cannot be written as PNG ({error}); convert it to RGB first") from error
        return file.getvalue(), "image/png"
    kind = type(example).__name__
    raise InputError(f"an example must be a path, bytes, a numpy array or a Pillow image, got {kind}")


def npy(array: Array) -> bytes:
    """An array of numbers as the bytes of a ``.npy`` file.

    Raises:
        InputError: the array does not hold integers or floats.
    """
    if array.dtype.kind not in "uif":
        raise InputError(f"an array must hold integers or floats, got {array.dtype}")
    values = np.ascontiguousarray(array)
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(values))
    # numpy.save would write the values in small pieces, which takes fifty times as long.
    return b"".join((file.getvalue(), values.data))


def are_arrays(images: Any) -> TypeGuard[Array | Sequence[Array]]:
    """Whether the images are an array, or arrays that one batch can hold.

    Types must be equal because they carry meaning: integers are pixels from 0 to 255, floats from 0 to 1.
    """
    if isinstance(images, (str, bytes)) or not isinstance(images, Sequence):
        return isinstance(images, np.ndarray)
    arrays = [image for image in images if isinstance(image, np.ndarray)]
    return len(arrays) == len(images) > 0 and len({(array.shape, array.dtype) for array in arrays}) == 1


def as_batch(arrays: Array | Sequence[Array], example_shape: tuple[int, ...]) -> tuple[Array, bool]:
    """Make a batch of an array of one or many examples, or of a list of arrays of one example each.

    Args:
        arrays: one example or many, each of ``example_shape`` or flattened.
        example_shape: the shape of one example.

    Returns:
        The batch ``[N, *example_shape]`` and whether ``arrays`` is a single example.

    Raises:
        InputError: an array has another shape.
    """
    first = arrays if isinstance(arrays, np.ndarray) else arrays[0]
    size = math.prod(example_shape)
    single = first.shape in (example_shape, (size,))
    if not single and (first.ndim < 2 or math.prod(first.shape[1:]) != size):
        shape = ", ".join(map(str, example_shape))
        raise InputError(f"the model takes arrays of shape [{shape}] or [N, {shape}], got {list(first.shape)}")
    if first is not arrays and not single:
        raise InputError(f"each array of a list must be one example, got {list(first.shape)}")
    return np.asarray(arrays).reshape(-1, *example_shape), single and first is arrays


def pieces(batch: Array) -> Iterator[Array]:
    """The batch in order, in views that each fit one request."""
    row_bytes = max(1, batch[:1].nbytes)
    rows = max(1, min(PIECE_EXAMPLES, PIECE_BYTES // row_bytes))
    for start in range(0, len(batch), rows):
        yield batch[start : start + rows]
