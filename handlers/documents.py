"""JSON text becomes Python values, within limits that hold before anything is parsed."""

from __future__ import annotations

import re
from typing import Any

import orjson

from handlers import limits, problems

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# As Python's and JavaScript's writers spell them.
_NOT_FINITE = re.compile(rb"[\[,:\s-](NaN|Infinity)\b")


def without_mark(text: bytes | bytearray) -> bytes | bytearray:
    """The text without the byte order mark that some programs write before UTF-8."""
    return text[3:] if text.startswith(BYTE_ORDER_MARK) else text


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


def name(value: Any) -> str:
    """What a parsed value is called in messages."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
