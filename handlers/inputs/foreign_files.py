"""Names the kind of a file that the service does not decode, so that the refusal says what came."""

from __future__ import annotations

import re

# The first byte of each of these files, except those that start with a zero.
FIRST_BYTES = frozenset(b"%PI8M<\x1f\x89\xc2\xc3\xef\xff \t\r\n")

# Raw pixels must not pass as a file, so each pattern demands the equivalent of four or more bytes.
_PATTERNS = (
    ("PDF", rb"%PDF-"),
    ("zip", rb"PK\x03\x04|PK\x05\x06"),
    ("gzip", rb"\x1f\x8b\x08[\0-\x1f]"),
    # image_headers reads still pictures in these containers. Left are sequences, and pictures of other codecs.
    ("HEIF sequence", rb".{4}ftyp(?:hei|hev|mif1|msf1)"),
    ("MP4 video", rb".{4}ftyp"),
    ("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    ("JPEG XL", rb"\0\0\0\x0cJXL "),
    ("BigTIFF", rb"II\+\0|MM\0\+"),
    ("PSD", rb"8BPS\0[\1\2]"),
    # The place of the first picture's data follows from the number of pictures.
    (
        "ICO",
        rb"\0\0[\1\2]\0[\1-\x08]\0...\0[\0\1]\0[\1\4\x08\x10\x18\x20]\0....[\x16\x26\x36\x46\x56\x66\x76\x86]\0\0\0",
    ),
    ("PPM or PGM", rb"P[1-6]\s(?:#[^\n]*\n)?\s*\d+\s+\d+\s|P7\nWIDTH"),
    ("SVG", rb"(?i)\s*(?:<[?!][^>]*>\s*)*<svg\b"),
    ("HTML", rb"(?i)\s*<(?:!doctype )?html\b"),
    ("PNG that lost its line breaks", rb"\x89PNG(?!\r\n\x1a\n).{0,8}IHDR"),
    ("JPEG that lost its line breaks", rb"\xff\xd8\xff\xe0\x10JFIF"),
    # U+FFFD for each byte above 127, or these bytes in UTF-8.
    ("PNG that was read as text", rb"(?:\xef\xbf\xbd|\xc2\x89)PNG"),
    ("JPEG that was read as text", rb"(?:\xef\xbf\xbd){4}|\xc3\xbf\xc3\x98\xc3\xbf"),
)
_COMPILED = [(name, re.compile(pattern, re.DOTALL)) for name, pattern in _PATTERNS]
_HEAD_BYTES = 512
# Of the files that start with a zero: an ICO's first four bytes, and the type of the first box of the others. Most raw
# pixels start with a zero too; these save them the patterns.
_ICO_STARTS = (b"\0\0\1\0", b"\0\0\2\0")
_BOX_TYPES = (b"ftyp", b"jP  ", b"JXL ")


def kind(body: bytes | bytearray | memoryview) -> str | None:
    """The name of the kind of file that the first bytes declare, such as ``PDF``; ``None`` if they declare none."""
    start = bytes(body[:8])
    if not start or (start[0] not in FIRST_BYTES and start[:4] not in _ICO_STARTS and start[4:] not in _BOX_TYPES):
        return None
    head = bytes(body[:_HEAD_BYTES])
    return next((name for name, pattern in _COMPILED if pattern.match(head)), None)


def refusal(body: bytes | bytearray | memoryview) -> str | None:
    """The sentence that refuses such a file and says what to do, without its end; ``None`` as for ``kind``."""
    name = kind(body)
    if name is None:
        return None
    if "line breaks" in name:
        return f"the file is a {name}; curl sends a file unchanged with --data-binary, not with -d"
    if "text" in name:
        return f"the file is a {name}; read it in binary mode and send its bytes"
    return f"{name} files are not supported"
