"""Splits a ``multipart/form-data`` body into the bytes and content types of its parts, in order.

TorchServe splits forms too, for callers of its own port, but answers a broken form with 500. So the gateway sends
forms as another content type, and puts their own in ``X-Content-Type``.

Sources: RFC 2046, section 5.1.1 (delimiters), and RFC 7578 (forms). Names of fields and files are ignored.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from handlers import limits, problems

CONTENT_TYPE = "multipart/form-data"

_BOUNDARY = re.compile(r";\s*boundary=(?:\"([^\"]{1,70})\"|([^\s\";,]{1,70}))\s*(?:;|$)", re.IGNORECASE)
_PLAIN_ENCODINGS = ("", "7bit", "8bit", "binary")


def split(body: bytes | bytearray, content_type: str) -> Iterator[tuple[bytes | bytearray, str]]:
    """Iterate over the parts of a body: each part's bytes and content type, which is empty if the part has none.

    Args:
        body: the whole body.
        content_type: ``multipart/form-data`` with its boundary.

    Raises:
        problems.Malformed: the boundary is missing, or the body does not follow it.
        problems.TooLarge: more parts than ``limits.EXAMPLES``, or a part with too long headers.
        problems.UnsupportedFormat: a part in a transfer encoding, which RFC 7578 deprecates.
    """
    match = _BOUNDARY.search(content_type)
    if not match:
        raise problems.Malformed(f"{CONTENT_TYPE} needs a boundary, got content type {content_type[:200]!r}")
    dashes = b"--" + (match[1] or match[2]).encode("utf-8", "replace")
    delimiter = b"\r\n" + dashes
    # A delimiter at the very start of the body has no line break before it.
    place = 0 if body.startswith(dashes) else body.find(delimiter) + 2
    if place == 1:
        raise problems.Malformed("the form does not contain the boundary that its content type names")
    for number in itertools.count(1):
        place += len(dashes)
        if body.startswith(b"--", place):
            return
        if number > limits.EXAMPLES:
            raise problems.TooLarge(f"the form has more than {limits.EXAMPLES} parts; send several requests")
        start, kind = _headers(body, place)
        # In a part without content, the line break that ends the headers may be the delimiter's own.
        end = body.find(delimiter, start - 2)
        if end < 0:
            raise problems.Malformed(f"part {number} of the form is truncated: no boundary follows it")
        yield body[start : max(start, end)], kind
        place = end + 2


def _headers(body: bytes | bytearray, place: int) -> tuple[int, str]:
    """For the part whose delimiter ends at ``place``: the position of its content, and its content type."""
    line_end = body.find(b"\r\n", place, place + limits.PART_HEADER_BYTES)
    if line_end < 0 or body[place:line_end].strip(b" \t"):
        raise problems.Malformed("each boundary of the form must be followed by a line break (CRLF)")
    headers_end = body.find(b"\r\n\r\n", line_end, line_end + limits.PART_HEADER_BYTES)
    if headers_end < 0:
        if len(body) - line_end > limits.PART_HEADER_BYTES:
            raise problems.TooLarge(f"the headers of a part of the form exceed {limits.PART_HEADER_BYTES} bytes")
        raise problems.Malformed("a part of the form is truncated within its headers")
    headers: dict[str, str] = {}
    for line in body[line_end:headers_end].decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    encoding = headers.get("content-transfer-encoding", "").lower()
    if encoding not in _PLAIN_ENCODINGS:
        raise problems.UnsupportedFormat(
            f"a part of the form has the transfer encoding {encoding[:40]!r}; send its bytes unencoded"
        )
    return headers_end + 4, headers.get("content-type", "")
