"""JSON text becomes Python values, within limits that hold before anything is parsed."""

from __future__ import annotations

import re
from typing import Any

import orjson

from handlers import limits, problems

_NOT_FINITE = re.compile(rb"[\[,:\s-](NaN|Infinity|inf|nan)\b")


def check_size(text: bytes | bytearray) -> None:
    """Refuse a text that would take too much memory once parsed.

    Raises:
        problems.TooLarge: more values than ``limits.JSON_VALUES``.
    """
    # The text of a value and its separator is at least 2 bytes, so short texts need no count.
    if len(text) > limits.JSON_VALUES:
        values = text.count(b",") + text.count(b"[") + text.count(b"{")
        if values > limits.JSON_VALUES:
            raise problems.TooLarge(
                f"{values} JSON values in one request; the limit is {limits.JSON_VALUES}. "
                "Send many examples as application/octet-stream or application/x-npy."
            )


def load(text: bytes | bytearray) -> Any:
    """Parse JSON in UTF-8.

    Raises:
        problems.Malformed: not JSON, nested too deeply, or not UTF-8.
        problems.Unprocessable: it would be JSON, but for NaN or Infinity.
        problems.TooLarge: more values than ``limits.JSON_VALUES``.
    """
    check_size(text)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if _NOT_FINITE.search(text):
            raise problems.Unprocessable("the JSON holds NaN or Infinity; send finite numbers") from None
        raise problems.Malformed(f"not JSON: {error}") from None
