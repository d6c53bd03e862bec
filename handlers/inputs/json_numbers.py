"""JSON text becomes Python values, within limits that hold before anything is parsed, and its numbers become arrays.

Lists become arrays when they are parsed already, or piece by piece where the text is too long to parse at once.

Numbers of an image are pixels, and become uint8, if every one of them is written as an integer; one with a point or an
exponent makes fractions of all.
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

# Some programs write it before UTF-8.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# As Python's and JavaScript's writers spell them.
_NOT_FINITE = re.compile(rb"[\[,:\s-](NaN|Infinity)\b")

# Lists in a list, and lists of lists in a list: where a member of the outermost list ends.
_BORDERS = {2: re.compile(rb"\]\s*,"), 3: re.compile(rb"\]\s*\]\s*,")}
_OPENING = re.compile(rb"\s*((?:\[\s*)+)")
# A member of another type, or what cannot be told from one without parsing.
_OTHERS = (b'"', b"{", b"true", b"false", b"null")


def check_size(text: bytes | bytearray) -> None:
    """Refuse a text that would take too much memory once parsed.

    Raises:
        problems.TooLarge: more than ``limits.JSON_BYTES``, or than ``limits.JSON_VALUES`` stands for.
    """
    if len(text) > limits.JSON_BYTES:
        raise problems.TooLarge(
            f"{len(text)} bytes of JSON; the limit is {limits.JSON_BYTES}, but for lists of nothing but numbers. "
            "Send image files as multipart/form-data, tensors in binary form."
        )
    # The text of a value and its separator has at least 2 bytes, and no value counts for more than 5.
    if len(text) <= limits.JSON_VALUES // 5:
        return
    # In halves of what a number takes. Marks within strings count too; the strings sent here hardly have any.
    halves = 2 * text.count(b",") + 3 * text.count(b"[") + 10 * text.count(b"{") + text.count(b'"')
    if halves > 2 * limits.JSON_VALUES:
        raise problems.TooLarge(
            f"the JSON holds the like of {halves // 2} numbers; the limit is {limits.JSON_VALUES}. "
            "Send many examples as application/octet-stream or application/x-npy."
        )


def load(text: bytes | bytearray) -> Any:
    """Parse JSON in UTF-8.

    Raises:
        problems.Malformed: not JSON, nested too deeply, or not UTF-8.
        problems.Unprocessable: it would be JSON, but for NaN, Infinity or a number beyond float64's range.
        problems.TooLarge: as ``check_size``.
    """
    check_size(text)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        # The plain search is a hundred times faster, which counts where megabytes of something else are sent as JSON.
        written = (b"NaN" in text or b"Infinity" in text) and _NOT_FINITE.search(text)
        if written or "infinity" in str(error):
            raise problems.Unprocessable("the JSON holds NaN or Infinity; send finite numbers") from None
        raise problems.Malformed(f"not JSON: {error}") from None


def type_name(value: Any) -> str:
    """What a parsed value is called in messages."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def from_list(nested: list[Any], pixels: bool, may_hold_booleans: bool, datatype: type = np.float64) -> NDArray[Any]:
    """A rectangular nested list as uint8 pixels, or else as floats.

    Args:
        nested: as ``load`` parsed it.
        pixels: integers are pixels; without it, they are converted like all numbers.
        may_hold_booleans: false where the text holds neither ``true`` nor ``false``, which saves a look at each number.
        datatype: of the floats.

    Raises:
        problems.Unprocessable: not rectangular, not only numbers, or an integer that is no pixel.
    """
    shape, flat = _flattened(nested)
    if pixels:
        try:
            found = bytes(flat)
        except ValueError:
            raise problems.Unprocessable(f"integer pixels must be from 0 to {validation.PIXEL_MAX}") from None
        except TypeError:
            pass
        else:
            if not (may_hold_booleans and bool in map(type, flat)):
                return np.frombuffer(found, np.uint8).reshape(shape)
    return _converted(flat, datatype, may_hold_booleans).reshape(shape)


def from_text(text: bytes | bytearray, start: int, end: int, pixels: bool, most: int) -> NDArray[Any] | None:
    """A list of lists of numbers, parsed piece by piece, so that it takes little more memory than its text.

    Args:
        text: JSON between ``start`` and ``end``.
        start: where the list starts, or white space before it.
        end: where it ends, or white space behind it.
        pixels: as in ``from_list``.
        most: the most numbers that are accepted.

    Returns:
        uint8 pixels or float32; ``None`` if the text is, or may hold, anything else.

    Raises:
        problems.Problem: as ``from_list`` and ``load``; TooLarge for more than ``most`` numbers.
    """
    opening = _OPENING.match(text, start, end)
    depth = opening[1].count(b"[") if opening else 0
    if depth not in _BORDERS or any(text.find(other, start, end) >= 0 for other in _OTHERS):
        return None
    fractions = not pixels or any(text.find(mark, start, end) >= 0 for mark in (b".", b"e", b"E"))
    found: list[NDArray[Any]] = []
    count = 0
    for piece in _pieces(text, start, end, _BORDERS[depth]):
        values = from_list(load(piece), not fractions, False, np.float32)
        if found and values.shape[1:] != found[0].shape[1:]:
            raise problems.Unprocessable("the lists have different lengths; send a rectangular array")
        found.append(values)
        count += values.size
        if count > most:
            raise problems.TooLarge(f"more than {most} numbers in one request, or {limits.EXAMPLES} examples")
    return np.concatenate(found)


def _pieces(text: bytes | bytearray, start: int, end: int, border: re.Pattern[bytes]) -> Iterator[bytes]:
    """JSON lists that together hold the members of the list ``text[start:end]``, in order."""
    start = text.index(b"[", start) + 1
    while end - start > limits.JSON_PIECE_BYTES:
        found = border.search(text, start + limits.JSON_PIECE_BYTES // 2, end)
        if found is None:
            break
        yield b"[" + text[start : found.end() - 1] + b"]"
        start = found.end()
    # The list's own end is part of the last piece.
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
        flat = list(itertools.chain.from_iterable(flat))
    return shape, flat


def _converted(flat: list[Any], datatype: type, may_hold_booleans: bool) -> NDArray[Any]:
    try:
        # fromiter would read a string as a number and null as NaN, which a sum does not.
        sum(flat)
        # A number beyond float32 becomes infinite and is refused with the others that are not finite.
        with np.errstate(over="ignore"):
            numbers: NDArray[Any] | None = np.fromiter(flat, datatype, len(flat))
    except TypeError:
        numbers = None
    if numbers is None or (may_hold_booleans and bool in map(type, flat)):
        wrong = next(value for value in flat if type(value) not in (int, float))
        raise problems.Unprocessable(f"a list holds {type_name(wrong)} in the place of a number")
    return numbers
