"""Splits the body of a form into its parts, in order: ``multipart/form-data``, or URL-encoded.

TorchServe splits forms too, for callers of its own port, but answers a broken form with 500. So the gateway sends
forms as another content type, and puts their own in ``X-Content-Type``.

Sources: RFC 2046, section 5.1.1 (delimiters), RFC 7578 (forms), and the URL standard (``urlencoded`` forms).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from handlers import limits, problems

CONTENT_TYPE = "multipart/form-data"

URL_ENCODED = "application/x-www-form-urlencoded"

# RFC 2046 allows 70 characters.
_BOUNDARY = re.compile(r";\s*boundary=(?:\"([^\"]{1,70})\"|([^\s\";,]{1,70}))\s*(?:;|$)", re.IGNORECASE)
# These leave the bytes unchanged (RFC 2045, section 6.2).
_PLAIN_ENCODINGS = ("", "7bit", "8bit", "binary")
_DISPOSITION = re.compile(r";\s*(filename|name)\*?=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;]*))", re.IGNORECASE)
# The name of a URL-encoded field. An image in base64 has no "=" among its first 64 characters.
_FIELD_NAME = re.compile(rb"([\w.\[\]-]{1,64})=")


class Part(NamedTuple):
    """One body, or one part of a form.

    Attributes:
        body: its bytes.
        content_type: empty if it has none.
        name: of the form's field; empty for a whole body.
        optional: a text field or an empty file slot, which browsers send with a file. It may hold no example.
    """

    body: bytes | bytearray
    content_type: str
    name: str = ""
    optional: bool = False


def split(body: bytes | bytearray, content_type: str) -> Iterator[Part]:
    """Iterate over the parts of a ``multipart/form-data`` body.

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
        start, headers = _headers(body, place)
        # In a part without content, the line break that ends the headers may be the delimiter's own.
        end = body.find(delimiter, start - 2)
        if end < 0:
            raise problems.Malformed(f"part {number} of the form is truncated: no boundary follows it")
        yield _part(body[start : max(start, end)], headers)
        place = end + 2


def split_url_encoded(body: bytes | bytearray) -> list[Part]:
    """The fields of an ``application/x-www-form-urlencoded`` body; a body that is one bare value counts as a field.

    Raises:
        problems.TooLarge: more than ``limits.EXAMPLES`` fields, or more percent signs than a form needs.
    """
    fields = body.split(b"&", limits.EXAMPLES)
    # Until it is a byte, each percent sign takes some 50 bytes of memory, less than a number in JSON.
    if len(fields) > limits.EXAMPLES or body.count(b"%") > limits.JSON_VALUES:
        raise problems.TooLarge("the form is too large; send image files as multipart/form-data")
    parts = []
    for field in fields:
        match = _FIELD_NAME.match(field)
        value = unquote_to_bytes(bytes(field[match.end() if match else 0 :].replace(b"+", b" ")))
        parts.append(Part(value, "text/plain", match[1].decode("latin-1") if match else "", optional=True))
    return parts


def _part(body: bytes | bytearray, headers: dict[str, str]) -> Part:
    content_type, disposition = headers.get("content-type", ""), headers.get("content-disposition", "")
    labels = {match[1].lower(): match[2] or match[3] or "" for match in _DISPOSITION.finditer(disposition)}
    is_text = "name" in labels and "filename" not in labels and not content_type
    is_empty_slot = not body and not labels.get("filename")
    return Part(body, "text/plain" if is_text else content_type, labels.get("name", ""), is_text or is_empty_slot)


def _headers(body: bytes | bytearray, place: int) -> tuple[int, dict[str, str]]:
    """For the part whose delimiter ends at ``place``: the position of its content, and its headers."""
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
    return headers_end + 4, headers
