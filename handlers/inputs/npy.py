"""Reads and writes the ``.npy`` format; reading is strict and never unpickles.

Source: NEP 1 and ``numpy.lib.format``, versions 1.0, 2.0 and 3.0.
"""

from __future__ import annotations

import ast
import functools
import io
import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers import limits, problems

MAGIC = b"\x93NUMPY"
CONTENT_TYPE = "application/x-npy"

_DATATYPE = re.compile(r"[<>=|]?(f[248]|[iu][1248])")


def read(body: bytes | bytearray | memoryview) -> NDArray[Any]:
    """Read an array of integers or floats without copying it, in any byte order, in C or Fortran order.

    Raises:
        problems.Malformed: a wrong or too long header, or data of another length than the header declares.
        problems.Unprocessable: a datatype other than integers and floats, such as pickled objects.
    """
    view = memoryview(body)
    if bytes(view[:6]) != MAGIC:
        raise problems.Malformed("the .npy data must start with \\x93NUMPY")
    major = view[6] if len(view) > 6 else 0
    if major not in (1, 2, 3):
        raise problems.Malformed(f"the .npy version must be 1, 2 or 3, got {major}")
    start = 10 if major == 1 else 12
    length = int.from_bytes(view[8:start], "little")
    if length > limits.NPY_HEADER_BYTES or len(view) < start + length:
        raise problems.Malformed(
            f"the .npy header declares {length} bytes, but {max(len(view) - start, 0)} follow; "
            f"the limit is {limits.NPY_HEADER_BYTES}"
        )
    datatype, fortran, shape = _header(bytes(view[start : start + length]))
    data = view[start + length :]
    expected = math.prod(shape) * datatype.itemsize
    if len(data) != expected:
        raise problems.Malformed(f"the .npy header declares {expected} bytes of data, but {len(data)} follow")
    values = np.frombuffer(data, datatype)
    return values.reshape(shape[::-1]).transpose() if fortran else values.reshape(shape)


@functools.lru_cache(maxsize=64)
def _header(text: bytes) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    try:
        header = ast.literal_eval(text.decode("latin-1").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise problems.Malformed("the .npy header is not a Python dictionary") from None
    if type(header) is not dict or set(header) != {"descr", "fortran_order", "shape"}:
        raise problems.Malformed("the .npy header needs exactly descr, fortran_order and shape")
    datatype, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    if type(fortran) is not bool:
        raise problems.Malformed("fortran_order in the .npy header must be True or False")
    if type(shape) is not tuple or not all(type(length) is int and length >= 0 for length in shape):
        raise problems.Malformed("shape in the .npy header must be a tuple of whole numbers")
    # numpy before version 2 supports 32 axes.
    if len(shape) > 32 or math.prod(shape) > limits.REQUEST_BYTES:
        raise problems.Malformed(
            f"shape in the .npy header must have at most 32 axes and {limits.REQUEST_BYTES} values"
        )
    if type(datatype) is not str or not _DATATYPE.fullmatch(datatype):
        raise problems.Unprocessable(
            f"the .npy datatype {str(datatype)[:40]!r} is not supported; send integers or floats of up to 64 bits"
        )
    return np.dtype(datatype), fortran, shape


def write(values: NDArray[Any]) -> bytes:
    """Write an array as version 1.0."""
    return _header_for(values.dtype, values.shape) + values.tobytes()


@functools.lru_cache(maxsize=64)
def _header_for(datatype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": np.lib.format.dtype_to_descr(datatype), "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()
