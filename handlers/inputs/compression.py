"""Decompresses a request body (``Content-Encoding``: gzip or deflate) within the limit on bodies.

The gateway passes the encoding on as ``X-Content-Encoding``, because TorchServe would decompress the body without a
limit. Sources: RFC 9110, section 8.4.1; RFC 1952 (gzip), RFC 1950 (zlib), RFC 1951 (deflate).
"""

from __future__ import annotations

import zlib

from handlers import limits, problems

HEADER = "x-content-encoding"

# zlib recognizes the headers of gzip and zlib itself.
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
# zlib copies the rest of its input after each call, so the input is passed on in small pieces.
_INPUT_PIECE_BYTES = 64 * 1024
_OUTPUT_PIECE_BYTES = 1024 * 1024
# Members of one gzip body. Programs that write several write one for each megabyte or more.
_MEMBERS = 1000


def decompress(body: bytes | bytearray, encoding: str) -> bytearray:
    """Decompress a body.

    Args:
        body: as the caller sent it.
        encoding: ``gzip``, ``x-gzip`` or ``deflate``, in any case.

    Raises:
        problems.UnsupportedFormat: another encoding.
        problems.Malformed: the body is not in this encoding, is truncated, or has too many members.
        problems.TooLarge: more than ``limits.REQUEST_BYTES`` once decompressed; the rest is not decompressed.
    """
    if encoding.lower() not in ("gzip", "x-gzip", "deflate"):
        raise problems.UnsupportedFormat(f"Content-Encoding must be gzip, deflate or identity, got {encoding[:40]!r}")
    is_deflate = encoding.lower() == "deflate"
    view, place, result = memoryview(body), 0, bytearray()
    try:
        for _ in range(1 if is_deflate else _MEMBERS):
            if place == len(view):
                break
            # Some programs send deflate without the header of zlib, whose first byte has the method 8 in its low half.
            is_bare = is_deflate and view[place] & 15 != 8
            decompressor = zlib.decompressobj(-zlib.MAX_WBITS if is_bare else _GZIP_OR_ZLIB)
            while not decompressor.eof:
                piece = bytes(view[place : place + _INPUT_PIECE_BYTES])
                if not piece:
                    raise problems.Malformed(f"the {encoding} body is truncated")
                place += len(piece)
                _add(result, decompressor, piece)
            place -= len(decompressor.unused_data)
    except zlib.error as error:
        raise problems.Malformed(f"the body is not in the encoding {encoding}: {error}") from None
    if place < len(view):
        raise problems.Malformed(f"bytes follow the end of the {encoding} body")
    return result


def _add(result: bytearray, decompressor: zlib._Decompress, piece: bytes) -> None:
    """Decompress one piece of the input and append it to the result."""
    while True:
        output = decompressor.decompress(piece, _OUTPUT_PIECE_BYTES)
        result += output
        if len(result) > limits.REQUEST_BYTES:
            raise problems.TooLarge(
                f"the body is longer than {limits.REQUEST_BYTES} bytes once decompressed; send several requests"
            )
        piece = decompressor.unconsumed_tail
        # zlib may hold more output without needing more input.
        if decompressor.eof or (not piece and len(output) < _OUTPUT_PIECE_BYTES):
            return
