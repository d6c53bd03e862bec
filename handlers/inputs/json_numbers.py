"""JSON text becomes Python values, and its numbers become arrays; limits apply before anything is parsed.

``from_list`` converts a parsed list. ``from_text`` converts a text too long to parse at once, piece by piece.

An image's numbers are pixels (uint8) if all of them are integers. A single one with a point or an exponent makes all of
them fractions.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from handlers import limits, problems
from handlers.inputs import validation

# Some programs write it at the start of UTF-8 text.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# As Python and JavaScript write them.
_NOT_FINITE = re.compile(rb"[\[,:\s-](NaN|Infinity)\b")

# By nesting depth, the end of a member of the outermost list. Depth 2 is [N, values], depth 3 [N, H, W], depth 4 has a
# channel axis.
_BORDERS = {depth: re.compile(rb"\]\s*" * (depth - 1) + b",") for depth in (2, 3, 4)}
# More than any model has. numpy would fail at 33 or 65.
MAX_AXES = 8
_OPENING = re.compile(rb"\s*((?:\[\s*)+)")
# A text with one of these may hold members other than numbers and lists.
_NOT_NUMBERS = (b'"', b"{", b"true", b"false", b"null")


def check_size(text: bytes | bytearray) -> None:
    """Refuse a text that would take too much memory once parsed.

    Raises:
        problems.TooLarge: more bytes than ``limits.JSON_BYTES``, or more values than ``limits.JSON_VALUES``.
    """
    if len(text) > limits.JSON_BYTES:
        raise problems.TooLarge(
            f"the JSON is too long ({len(text)} bytes, limit {limits.JSON_BYTES} except for lists of only numbers); "
            "send image files as multipart/form-data, and tensors in binary form"
        )
    # No byte counts as more than 5 numbers: "{" counts as 10 halves.
    if len(text) <= limits.JSON_VALUES // 5:
        return
    # In half numbers, because limits.JSON_VALUES counts a list as one and a half. Marks inside strings count too, but
    # base64 has none.
    halves = 2 * text.count(b",") + 3 * text.count(b"[") + 10 * text.count(b"{") + text.count(b'"')
    if halves > 2 * limits.JSON_VALUES:
        raise problems.TooLarge(
            f"the JSON is too large (about {halves // 2} numbers, limit {limits.JSON_VALUES}); "
            "send many examples as application/octet-stream or application/x-npy"
        )


def load(text: bytes | bytearray) -> Any:
    """Parse JSON in UTF-8.

    Raises:
        problems.Malformed: the text is not JSON, is nested too deeply, or is not UTF-8.
        problems.Unprocessable: the text holds NaN, Infinity or a number beyond float64's range.
        problems.TooLarge: as in ``check_size``.
    """
    check_size(text)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        # The plain search comes first: it is a hundred times faster, and the body may be megabytes of other data.
        not_finite = (b"NaN" in text or b"Infinity" in text) and _NOT_FINITE.search(text)
        if not_finite or "infinity" in str(error):
            raise problems.Unprocessable("the JSON holds NaN or Infinity; send finite numbers") from None
        raise problems.Malformed(f"invalid JSON: {error}") from None


def type_name(value: Any) -> str:
    """The name of a parsed value's type in messages."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def from_list(nested: list[Any], pixels: bool, may_hold_booleans: bool, datatype: type = np.float64) -> NDArray[Any]:
    """A rectangular nested list as uint8 pixels, or else as floats.

    Args:
        nested: as ``load`` parsed it.
        pixels: read a list of integers as pixels; otherwise all numbers become floats.
        may_hold_booleans: false if the text holds neither ``true`` nor ``false``, which saves a check of each number.
        datatype: of the floats. float64 holds what the text says, so that a number beyond float32 is noticed; a long
            text takes float32, half the memory.

    Raises:
        problems.Unprocessable: not rectangular, not only numbers, or an integer that is not a pixel.
    """
    shape, flat = _flattened(nested)
    if pixels:
        try:
            values = bytes(flat)
        except ValueError:
            # bytes() converts in order, so only integers come before the wrong one.
            wrong = next(value for value in flat if not 0 <= value <= validation.PIXEL_MAX)
            raise problems.Unprocessable(
                f"integer pixels must be from 0 to {validation.PIXEL_MAX}, got {wrong}"
            ) from None
        except TypeError:
            pass
        else:
            if not (may_hold_booleans and bool in map(type, flat)):
                return np.frombuffer(values, np.uint8).reshape(shape)
    return _converted(flat, datatype, may_hold_booleans).reshape(shape)


def from_text(text: bytes | bytearray, start: int, end: int, pixels: bool, limit: int) -> NDArray[Any] | None:
    """Parse a list of lists of numbers piece by piece, so that it takes little more memory than its text.

    Args:
        text: JSON between ``start`` and ``end``.
        start: position where the list starts, or of white space before it.
        end: position where the list ends, or of white space after it.
        pixels: as in ``from_list``.
        limit: the largest accepted count of numbers.

    Returns:
        uint8 pixels or float32; ``None`` if the text may hold anything but lists and numbers.

    Raises:
        problems.Problem: as in ``from_list`` and ``load``; TooLarge for more than ``limit`` numbers.
    """
    opening = _OPENING.match(text, start, end)
    depth = opening[1].count(b"[") if opening else 0
    if depth not in _BORDERS or any(text.find(mark, start, end) >= 0 for mark in _NOT_NUMBERS):
        return None
    fractions = not pixels or any(text.find(mark, start, end) >= 0 for mark in (b".", b"e", b"E"))
    arrays: list[NDArray[Any]] = []
    count = 0
    for piece in _pieces(text, start, end, _BORDERS[depth]):
        values = from_list(load(piece), not fractions, False, np.float32)
        if arrays and values.shape[1:] != arrays[0].shape[1:]:
            raise problems.Unprocessable("the lists have different lengths; send a rectangular array")
        arrays.append(values)
        count += values.size
        if count > limit:
            raise problems.TooLarge(f"the request holds more than {limit} numbers; send fewer examples")
    return np.concatenate(arrays)


def _pieces(text: bytes | bytearray, start: int, end: int, border: re.Pattern[bytes]) -> Iterator[bytes]:
    """Split the list ``text[start:end]`` into shorter JSON lists that hold its members in order."""
    start = text.index(b"[", start) + 1
    while end - start > limits.JSON_PIECE_BYTES:
        # Half of the limit, so that with the rest of its last member a piece stays below it.
        match = border.search(text, start + limits.JSON_PIECE_BYTES // 2, end)
        if match is None:
            break
        yield b"[" + text[start : match.end() - 1] + b"]"
        start = match.end()
    # The last piece includes the end of the list.
    yield b"[" + text[start:end]


def _flattened(nested: list[Any]) -> tuple[list[int], list[Any]]:
    """The shape of a rectangular nested list, and its members in one list."""
    shape, flat = [len(nested)], nested
    while flat and type(flat[0]) is list:
        if not all(type(member) is list for member in flat):
            raise problems.Unprocessable("lists and single values are mixed; send a rectangular array")
        lengths = set(map(len, flat))
        if len(lengths) > 1:
            raise problems.Unprocessable("the lists have different lengths; send a rectangular array")
        shape.append(lengths.pop())
        if len(shape) > MAX_AXES:
            raise problems.Unprocessable(f"the lists are nested too deeply; send at most {MAX_AXES} axes")
        flat = list(itertools.chain.from_iterable(flat))
    return shape, flat


def _converted(flat: list[Any], datatype: type, may_hold_booleans: bool) -> NDArray[Any]:
    try:
        # sum() refuses strings and null; fromiter would read a string as a number and null as NaN.
        sum(flat)
        # A number beyond float32 becomes infinite, which validation refuses.
        with np.errstate(over="ignore"):
            numbers: NDArray[Any] | None = np.fromiter(flat, datatype, len(flat))
    except TypeError:
        numbers = None
    if numbers is None or (may_hold_booleans and bool in map(type, flat)):
        wrong = next(value for value in flat if type(value) not in (int, float))
        raise problems.Unprocessable(f"a list of numbers must hold only numbers, got {type_name(wrong)}")
    return numbers
