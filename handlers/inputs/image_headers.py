"""Checks of an image file's headers, before any of it is decoded.

Pillow trusts these files. A few bytes can declare gigabytes of pixels, and its Python loops over segments and chunks
can run for minutes. The walk through the headers here costs almost nothing.

Sources: PNG (W3C Recommendation, third edition), JPEG (ITU-T T.81), GIF89a, WebP container (RFC 9649), BMP
(BITMAPINFOHEADER and its relatives).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from handlers import limits, problems
from handlers.inputs import foreign_files

# The first bytes of files in the accepted formats.
FIRST_BYTES = frozenset(b"\x89\xffRGB")

# The first byte of each header in use, which is its length: BITMAPCOREHEADER to BITMAPV5HEADER.
_BMP_HEADERS = [bytes([length]) for length in (12, 40, 52, 56, 64, 108, 124)]
_BMP_UNCOMPRESSED = (0, 3)
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_JPEG_BASELINE = (0xC0, 0xC1)
# Every SOFn marker. Three markers in that range mean something else: DHT, JPG and DAC.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a length: TEM and RSTn.
_JPEG_BARE_MARKERS = frozenset((0x01, *range(0xD0, 0xD8)))


def sniff(body: bytes | bytearray | memoryview) -> str | None:
    """The format that the first bytes declare: PNG, JPEG, WEBP, GIF or BMP; ``None`` for anything else.

    Raw pixels must not pass as a file, so BMP is recognized by more than its two letters.
    """
    # The first byte rules out a file for most raw pixels.
    if not body or body[0] not in FIRST_BYTES:
        return None
    start = bytes(body[:18])
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    # One byte before its place, the name shows that bytes were lost; foreign_files says so.
    if start[:3] == b"\xff\xd8\xff" and start[5:9] != b"JFIF":
        return "JPEG"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if start[:2] == b"BM" and start[6:10] == bytes(4) and start[14:15] in _BMP_HEADERS and start[15:18] == bytes(3):
        return "BMP"
    return None


def inspect(body: bytes) -> str:
    """Read a file's headers and refuse a file that would cost too much to decode.

    Returns:
        Pillow's name of the format.

    Raises:
        problems.UnsupportedFormat: not an accepted format, or a rare form of one (compressed BMP).
        problems.Malformed: an accepted format, but truncated or contradictory.
        problems.TooLarge: more pixels or segments than ``handlers.limits`` allows.
    """
    format_ = sniff(body)
    if format_ is None:
        refusal = foreign_files.refusal(body) or "unrecognized image format"
        raise problems.UnsupportedFormat(f"{refusal}; send PNG, JPEG, WebP, GIF or BMP")
    try:
        width, height, limit = _READERS[format_](body)
    except (IndexError, ValueError, struct.error):
        raise problems.Malformed(f"the {format_} image is truncated") from None
    if width < 1 or height < 1:
        raise problems.Malformed(f"the {format_} image must have at least 1x1 pixels, got {width}x{height}")
    if width * height > limit:
        raise problems.TooLarge(f"the {format_} image is too large ({width}x{height} pixels, limit {limit} pixels)")
    return format_


def _too_many_pieces(format_: str) -> problems.TooLarge:
    return problems.TooLarge(
        f"the {format_} image has too many chunks, segments or scans; save it again without metadata"
    )


def _png(body: bytes) -> tuple[int, int, int]:
    width, height = struct.unpack_from(">II", body, 16)
    channels = _PNG_CHANNELS.get(body[25])
    if channels is None or body[12:16] != b"IHDR":
        raise problems.Malformed("the PNG image has no valid header")
    place = 8
    for _ in range(limits.IMAGE_PIECES):
        name = body[place + 4 : place + 8]
        place += 12 + struct.unpack_from(">I", body, place)[0]
        # Pillow reads a file that ends after its pixels, without a warning.
        if place > len(body):
            raise problems.Malformed("the PNG image is truncated")
        if name == b"IEND":
            break
    else:
        raise _too_many_pieces("PNG")
    # With 16 bits per channel, unpacking takes twice the time and memory.
    return width, height, limits.PIXELS if channels * body[24] <= 32 else limits.PIXELS // 2


def _jpeg(body: bytes) -> tuple[int, int, int]:
    place, frame, stray = 2, 0, 0
    for _ in range(limits.IMAGE_PIECES):
        # Webcams and older phones leave bytes between segments, which every decoder skips.
        start = body.index(b"\xff", place)
        stray += start - place
        if stray > limits.JPEG_STRAY_BYTES:
            raise problems.TooLarge(
                f"the JPEG image has more than {limits.JPEG_STRAY_BYTES} stray bytes; save it again"
            )
        marker = body[start + 1]
        place = start
        if marker == 0xFF:
            place += 1
        elif marker == 0:
            # Not a marker, but an escaped byte.
            place += 2
        elif marker in _JPEG_BARE_MARKERS:
            place += 2
        elif marker == 0xDA:
            break
        else:
            if marker in _JPEG_FRAMES:
                frame = place
            place += 2 + max(struct.unpack_from(">H", body, place + 2)[0], 2)
    else:
        raise _too_many_pieces("JPEG")
    # Pillow parses these segments, which can hold thousands of resources each. Photoshop writes one or two segments.
    if body.count(b"Photoshop 3.0\0", 0, place) > 8:
        raise _too_many_pieces("JPEG")
    if not frame:
        raise problems.Malformed("the JPEG image has no frame header before its first scan")
    height, width = struct.unpack_from(">HH", body, frame + 5)
    if body[frame + 1] in _JPEG_BASELINE and body[place + 4] == body[frame + 9]:
        return width, height, limits.JPEG_PIXELS
    # The decoder keeps all coefficients of a picture in several scans, and each scan visits all of them.
    if body.count(b"\xff\xda") > limits.JPEG_SCANS:
        raise _too_many_pieces("JPEG")
    return width, height, limits.PIXELS


def _webp(body: bytes) -> tuple[int, int, int]:
    kind = body[12:16]
    if len(body) > limits.WEBP_LOSSY_BYTES and b"VP8L" not in body:
        raise problems.TooLarge(
            f"the lossy WebP file is too large ({len(body)} bytes, limit {limits.WEBP_LOSSY_BYTES}); send it as JPEG"
        )
    if kind == b"VP8X":
        width, width_high, height, height_high = struct.unpack_from("<HBHB", body, 24)
        return 1 + width + (width_high << 16), 1 + height + (height_high << 16), limits.WEBP_PIXELS
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", body, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), limits.WEBP_PIXELS
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, 26)
        return width & 0x3FFF, height & 0x3FFF, limits.WEBP_PIXELS
    raise problems.Malformed("the WebP image starts with an unknown chunk")


def _gif(body: bytes) -> tuple[int, int, int]:
    width, height = struct.unpack_from("<HH", body, 6)
    place = 13 + (3 << (body[10] & 7) + 1 if body[10] & 0x80 else 0)
    in_extension = False
    for _ in range(limits.IMAGE_PIECES):
        block = body[place]
        if in_extension:
            place += 1 + block
            in_extension = block > 0
        elif block == 0x21:
            place += 2
            in_extension = True
        elif block == 0x2C:
            left, top, across, down = struct.unpack_from("<HHHH", body, place + 1)
            return max(width, left + across), max(height, top + down), limits.PIXELS
        elif block == 0x3B:
            raise problems.Malformed("the GIF image contains no picture")
        else:
            place += 1
    raise _too_many_pieces("GIF")


def _bmp(body: bytes) -> tuple[int, int, int]:
    if body[14] == 12:
        return (*struct.unpack_from("<HH", body, 18), limits.PIXELS)
    width, height, _, compression = struct.unpack_from("<IIII", body, 18)
    if compression not in _BMP_UNCOMPRESSED:
        raise problems.UnsupportedFormat(
            "compressed BMP images are not supported; save the image uncompressed, or as PNG"
        )
    # A negative height means that the rows run from top to bottom.
    return width, min(height, 2**32 - height), limits.PIXELS


_READERS: dict[str, Callable[[bytes], tuple[int, int, int]]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "WEBP": _webp,
    "GIF": _gif,
    "BMP": _bmp,
}
