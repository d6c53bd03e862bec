"""Numbers written in JSON become arrays: nested lists that are parsed already, and texts too long to parse at once.

Numbers of an image are pixels, and become uint8, if every one of them is written as an integer; one with a point or an
exponent makes fractions of all.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers import documents, examples, limits, problems

# Lists in a list, and lists of lists in a list: where a member of the outermost list ends.
_BORDERS = {2: re.compile(rb"\]\s*,"), 3: re.compile(rb"\]\s*\]\s*,")}
_OPENING = re.compile(rb"\s*((?:\[\s*)+)")
# A member of another type, or what cannot be told from one without parsing.
_OTHERS = (b'"', b"{", b"true", b"false", b"null")


def from_list(nested: list[Any], pixels: bool, may_hold_booleans: bool) -> NDArray[Any]:
    """A rectangular nested list as uint8 pixels, or else as float64.

    Args:
        nested: as ``handlers.documents`` parsed it.
        pixels: integers are pixels; without it, they are converted like all numbers.
        may_hold_booleans: false where the text holds neither ``true`` nor ``false``, which saves a look at each number.

    Raises:
        problems.Unprocessable: not rectangular, not only numbers, or an integer that is no pixel.
    """
    shape, flat = _flattened(nested)
    if pixels:
        try:
            found = bytes(flat)
        except ValueError:
            raise problems.Unprocessable(f"integer pixels must be from 0 to {examples.PIXEL_MAX}") from None
        except TypeError:
            pass
        else:
            if not (may_hold_booleans and bool in map(type, flat)):
                return np.frombuffer(found, np.uint8).reshape(shape)
    return _converted(flat, np.dtype(np.float64), may_hold_booleans).reshape(shape)


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
        problems.Problem: as ``from_list`` and ``documents.load``; TooLarge for more than ``most`` numbers.
    """
    opening = _OPENING.match(text, start, end)
    depth = opening[1].count(b"[") if opening else 0
    if depth not in _BORDERS or any(text.find(other, start, end) >= 0 for other in _OTHERS):
        return None
    fractions = not pixels or any(text.find(mark, start, end) >= 0 for mark in (b".", b"e", b"E"))
    found: list[NDArray[Any]] = []
    count = 0
    for piece in _pieces(text, start, end, _BORDERS[depth]):
        document = documents.load(piece)
        if fractions:
            shape, flat = _flattened(document)
            values = _converted(flat, np.dtype(np.float32), may_hold_booleans=False).reshape(shape)
        else:
            values = from_list(document, pixels, may_hold_booleans=False)
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


def _converted(flat: list[Any], datatype: np.dtype[Any], may_hold_booleans: bool) -> NDArray[Any]:
    try:
        # fromiter would read a string as a number and null as NaN, which a sum does not.
        sum(flat)
        # A number beyond float32 becomes infinite and is refused with the others that are not finite.
        with np.errstate(over="ignore"):
            numbers = np.fromiter(flat, datatype, len(flat))
    except TypeError:
        numbers = None
    if numbers is None or (may_hold_booleans and bool in map(type, flat)):
        wrong = next(value for value in flat if type(value) not in (int, float))
        raise problems.Unprocessable(f"a list holds {documents.name(wrong)} in the place of a number")
    return numbers
