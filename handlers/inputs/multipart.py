"""A ``multipart/form-data`` body comes apart into the bytes and content types of its parts, in order.

TorchServe does this too, for callers of its own port, and answers a broken body with 500. So the gateway hides from it
what kind of body it is, and names the kind in ``X-Content-Type``.

Sources: RFC 2046, section 5.1.1 (delimiters), and RFC 7578 (forms). Names of fields and files mean nothing here.
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
    """The parts of a body, one after the other: each its bytes and its content type, empty if it has none.

    Args:
        body: the whole body.
        content_type: ``multipart/form-data`` with its boundary.

    Raises:
        problems.Malformed: the boundary is missing, or the body does not keep to it.
        problems.TooLarge: more parts than examples that one request may hold, or a part with endless headers.
        problems.UnsupportedFormat: a part in a transfer encoding, which RFC 7578 deprecates.
    """
    found = _BOUNDARY.search(content_type)
    if not found:
        raise problems.Malformed(f"{CONTENT_TYPE} needs a boundary, got {content_type[:200]!r}")
    dashes = b"--" + (found[1] or found[2]).encode("utf-8", "replace")
    delimiter = b"\r\n" + dashes
    # The first delimiter needs no line break before it where nothing else stands there.
    place = 0 if body.startswith(dashes) else body.find(delimiter) + 2
    if place == 1:
        raise problems.Malformed("the body does not hold the boundary that the content type names")
    for number in itertools.count(1):
        place += len(dashes)
        if body.startswith(b"--", place):
            return
        if number > limits.EXAMPLES:
            raise problems.TooLarge(f"more than {limits.EXAMPLES} parts in one request")
        start, kind = _headers(body, place)
        # The line break that ends the headers can begin the delimiter, where a part has no content.
        end = body.find(delimiter, start - 2)
        if end < 0:
            raise problems.Malformed(f"part {number} of the form is cut short: no boundary follows it")
        yield body[start : max(start, end)], kind
        place = end + 2


def _headers(body: bytes | bytearray, place: int) -> tuple[int, str]:
    """Where the content begins of the part whose delimiter ends at ``place``, and its content type."""
    line_end = body.find(b"\r\n", place, place + limits.PART_HEADER_BYTES)
    if line_end < 0 or body[place:line_end].strip(b" \t"):
        raise problems.Malformed("a boundary of the form is not at the end of its line")
    headers_end = body.find(b"\r\n\r\n", line_end, line_end + limits.PART_HEADER_BYTES)
    if headers_end < 0:
        if len(body) - line_end > limits.PART_HEADER_BYTES:
            raise problems.TooLarge(f"a part of the form has more than {limits.PART_HEADER_BYTES} bytes of headers")
        raise problems.Malformed("a part of the form is cut short within its headers")
    headers: dict[str, str] = {}
    for line in body[line_end:headers_end].decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    encoding = headers.get("content-transfer-encoding", "").lower()
    if encoding not in _PLAIN_ENCODINGS:
        raise problems.UnsupportedFormat(f"a part of the form is encoded as {encoding[:40]!r}; send it as it is")
    return headers_end + 4, headers.get("content-type", "")
