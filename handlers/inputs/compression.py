"""Unpacks a compressed request body (``Content-Encoding``: gzip or deflate) within the limit on bodies.

The gateway passes the encoding on as ``X-Content-Encoding``, because TorchServe would unpack the body without a limit.
Sources: RFC 9110, section 8.4.1; RFC 1952 (gzip), RFC 1950 (zlib), RFC 1951 (deflate).
"""

from __future__ import annotations

import zlib

from handlers import limits, problems

HEADER = "x-content-encoding"

# zlib recognizes the headers of gzip and zlib itself.
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
# Unpacked at once: a small share of the limit, and few enough pieces that copying the rest of the input costs little.
_PIECE_BYTES = 8 * 1024 * 1024


def unpack(body: bytes | bytearray, encoding: str) -> bytearray:
    """Unpack a body.

    Args:
        body: as the caller sent it.
        encoding: ``gzip``, ``x-gzip`` or ``deflate``, in any case.

    Raises:
        problems.UnsupportedFormat: another encoding.
        problems.Malformed: the body is not in this encoding, or is truncated.
        problems.TooLarge: more than ``limits.REQUEST_BYTES`` once unpacked; the rest is not unpacked.
    """
    if encoding.lower() not in ("gzip", "x-gzip", "deflate"):
        raise problems.UnsupportedFormat(f"Content-Encoding must be gzip, deflate or identity, got {encoding[:40]!r}")
    unpacked = bytearray()
    rest: bytes | bytearray = body
    try:
        # A gzip body may have several members.
        while rest:
            # Some programs send deflate without the header of zlib, whose first byte has the method 8 in its low half.
            is_bare = encoding.lower() == "deflate" and rest[0] & 15 != 8
            unpacker = zlib.decompressobj(-zlib.MAX_WBITS if is_bare else _GZIP_OR_ZLIB)
            while not unpacker.eof:
                piece = unpacker.decompress(rest, _PIECE_BYTES)
                rest = unpacker.unconsumed_tail
                if not piece and not rest and not unpacker.eof:
                    raise problems.Malformed(f"the {encoding} body is truncated")
                unpacked += piece
                if len(unpacked) > limits.REQUEST_BYTES:
                    raise problems.TooLarge(
                        f"the body is longer than {limits.REQUEST_BYTES} bytes once unpacked; send several requests"
                    )
            rest = unpacker.unused_data
    except zlib.error as error:
        raise problems.Malformed(f"the body is not in the encoding {encoding}: {error}") from None
    return unpacked
