"""Checks of an image file's headers, before any of it is decoded.

Pillow trusts these files. A few bytes can declare gigabytes of pixels, and its Python loops over segments and chunks
can run for minutes. The walk through the headers here costs almost nothing.

Sources: PNG (W3C Recommendation, third edition), JPEG (ITU-T T.81), GIF89a, WebP container (RFC 9649), BMP
(BITMAPINFOHEADER and its relatives), TIFF 6.0. ``heif_headers`` reads HEIC and AVIF.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from handlers import limits, problems
from handlers.inputs import foreign_files, heif_headers

# The first bytes of files in the accepted formats, except HEIC and AVIF, which start with a zero.
FIRST_BYTES = frozenset(b"\x89\xffRGBIM")
NAMES = "PNG, JPEG, HEIC, AVIF, WebP, GIF, TIFF or BMP"

# Formats of video codecs, whose decoders hold several copies of a picture.
_CODEC_FORMATS = ("WEBP", "AVIF", "HEIC")

# A PNG's color types: gray, RGB, palette, gray with alpha, RGB with alpha.
_PNG_COLOR_TYPES = (0, 2, 3, 4, 6)

# SOF0 (baseline) and SOF1 (extended sequential): the frames that one scan can complete.
_JPEG_SEQUENTIAL = (0xC0, 0xC1)
# Every SOFn marker. Three markers in that range mean something else: DHT, JPG and DAC.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a length: TEM and RSTn.
_JPEG_BARE_MARKERS = frozenset((0x01, *range(0xD0, 0xD8)))
# Bytes of the length itself, which a segment's length includes.
_JPEG_LENGTH_BYTES = 2
# Pillow parses the segments of this name, which can hold thousands of resources each. Photoshop writes one or two.
_JPEG_RESOURCES_NAME = b"Photoshop 3.0\0"
_JPEG_RESOURCES = 8

# The first byte of each BMP header in use, which is its length: BITMAPCOREHEADER to BITMAPV5HEADER.
_BMP_CORE_HEADER = 12
_BMP_HEADERS = [bytes([length]) for length in (_BMP_CORE_HEADER, 40, 52, 56, 64, 108, 124)]
# BI_RGB, and BI_BITFIELDS, which only orders the channels.
_BMP_UNCOMPRESSED = (0, 3)

# Byte order, version, and the place of the first directory.
_TIFF_HEADER_BYTES = 8
# Tags of a TIFF's directory, and the values of those that may be missing.
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TIFF_BITS, _TIFF_COMPRESSION, _TIFF_PHOTOMETRIC, _TIFF_SAMPLES = 258, 259, 262, 339
_TIFF_DEFAULTS = {_TIFF_BITS: 1, _TIFF_COMPRESSION: 1, _TIFF_PHOTOMETRIC: 0, _TIFF_SAMPLES: 1}
# None, the three of fax machines, LZW, JPEG, Deflate, PackBits, and the older number of Deflate.
_TIFF_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)
# White is zero, black is zero, RGB, palette, CMYK, YCbCr.
_TIFF_PHOTOMETRICS = (0, 1, 2, 3, 5, 6)
_TIFF_DEPTHS = (1, 2, 4, 8, 16)
_TIFF_UNSIGNED = 1
# Types of a value -> struct's code: BYTE, SHORT, LONG.
_TIFF_TYPES = {1: "B", 3: "H", 4: "I"}
# BYTE, ASCII, SBYTE and UNDEFINED: Pillow keeps such values as bytes, and turns all others into Python numbers.
_TIFF_BYTES = (1, 2, 6, 7)

# The brands of a file with a still picture. The others are sequences, or name another codec.
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis")
_AVIF_BRANDS = (b"avif", b"avis")
# A brand without a codec. One of the compatible brands after it names the codec.
_HEIF_BRAND = b"mif1"
# Where the compatible brands start, and where they end here: a file names up to a dozen.
_BRANDS_START, _BRANDS_END = 16, 64


class _Declared(NamedTuple):
    """The size that a file declares, and whether it is a JPEG that can be decoded at a reduced size in one scan."""

    width: int
    height: int
    in_one_scan: bool = False


class Header(NamedTuple):
    """What decoding a file takes.

    Attributes:
        format: PNG, JPEG, WEBP, GIF, BMP, TIFF, HEIC or AVIF.
        pixels: as the file declares.
        effort: pixels of a PNG that take as long to decode.
        is_large: decoding takes more memory than every worker may take at once.
    """

    format: str
    pixels: int
    effort: int
    is_large: bool


def sniff(body: bytes | bytearray | memoryview) -> str | None:
    """The format that the first bytes declare, as ``Header.format``; ``None`` for anything else.

    Raw pixels must not pass as a file, so BMP is recognized by more than its two letters.
    """
    # The first byte rules out a file for most raw pixels.
    if not body:
        return None
    if body[0] not in FIRST_BYTES:
        return _sniff_heif(body) if body[0] == 0 and body[4:8] == b"ftyp" else None
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
    if start[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    if start[:2] == b"BM" and start[6:10] == bytes(4) and start[14:15] in _BMP_HEADERS and start[15:18] == bytes(3):
        return "BMP"
    return None


def _sniff_heif(body: bytes | bytearray | memoryview) -> str | None:
    brand = bytes(body[8:12])
    if brand == _HEIF_BRAND:
        end = min(int.from_bytes(body[:4], "big"), _BRANDS_END)
        compatible = [bytes(body[place : place + 4]) for place in range(_BRANDS_START, end, 4)]
        brand = next((name for name in compatible if name in (*_AVIF_BRANDS, *_HEIC_BRANDS)), brand)
    return "AVIF" if brand in _AVIF_BRANDS else "HEIC" if brand in _HEIC_BRANDS else None


def inspect(body: bytes | bytearray) -> Header:
    """Read a file's headers and refuse a file that would cost too much to decode.

    Raises:
        problems.UnsupportedFormat: not an accepted format, or a rare form of one (compressed BMP).
        problems.Malformed: an accepted format, but truncated or contradictory.
        problems.TooLarge: more pixels or segments than ``handlers.limits`` allows.
    """
    format_ = sniff(body)
    if format_ is None:
        refusal = foreign_files.refusal(body) or "unrecognized image format"
        raise problems.UnsupportedFormat(f"{refusal}; send {NAMES}")
    try:
        declared = _READERS[format_](body)
    except (IndexError, ValueError, struct.error):
        raise problems.Malformed(f"the {format_} image is truncated") from None
    width, height, in_one_scan = declared
    if width < 1 or height < 1:
        raise problems.Malformed(f"the {format_} image must have at least 1x1 pixels, got {width}x{height}")
    pixels, limit = width * height, limits.JPEG_PIXELS if in_one_scan else limits.PIXELS
    if pixels > limit:
        raise problems.TooLarge(
            f"the {format_} image is too large ({width}x{height} pixels, limit {limit} pixels); "
            f"{problems.SMALLER_IMAGE}"
        )
    many = limits.LARGE_CODEC_PIXELS if format_ in _CODEC_FORMATS else limits.LARGE_PIXELS
    is_large = (pixels > many and not in_one_scan) or len(body) > limits.LARGE_BYTES
    return Header(format_, pixels, pixels // limits.JPEG_REDUCTION if in_one_scan else pixels, is_large)


def _too_many_pieces(format_: str) -> problems.TooLarge:
    return problems.TooLarge(
        f"the {format_} image has too many chunks, segments or scans; save it again without metadata"
    )


def _png(body: bytes | bytearray) -> _Declared:
    width, height = struct.unpack_from(">II", body, 16)
    color_type = body[25]
    if color_type not in _PNG_COLOR_TYPES or body[12:16] != b"IHDR":
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
    return _Declared(width, height)


def _jpeg(body: bytes | bytearray) -> _Declared:
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
            # A shorter length is an error that decoders skip.
            place += 2 + max(struct.unpack_from(">H", body, place + 2)[0], _JPEG_LENGTH_BYTES)
    else:
        raise _too_many_pieces("JPEG")
    if body.count(_JPEG_RESOURCES_NAME, 0, place) > _JPEG_RESOURCES:
        raise _too_many_pieces("JPEG")
    if not frame:
        raise problems.Malformed("the JPEG image has no frame header before its first scan")
    height, width = struct.unpack_from(">HH", body, frame + 5)
    # The scan's number of components is the frame's, so this scan completes the picture.
    if body[frame + 1] in _JPEG_SEQUENTIAL and body[place + 4] == body[frame + 9]:
        return _Declared(width, height, in_one_scan=True)
    # The decoder keeps all coefficients of a picture in several scans, and each scan visits all of them.
    if body.count(b"\xff\xda") > limits.JPEG_SCANS:
        raise _too_many_pieces("JPEG")
    return _Declared(width, height)


def _webp(body: bytes | bytearray) -> _Declared:
    kind = body[12:16]
    if len(body) > limits.CODEC_BYTES and b"VP8L" not in body:
        raise _too_many_bytes(body, "lossy WebP")
    if kind == b"VP8X":
        width, width_high, height, height_high = struct.unpack_from("<HBHB", body, 24)
        return _Declared(1 + width + (width_high << 16), 1 + height + (height_high << 16))
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", body, 21)
        return _Declared(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, 26)
        return _Declared(width & 0x3FFF, height & 0x3FFF)
    raise problems.Malformed("the WebP image starts with an unknown chunk")


def _gif(body: bytes | bytearray) -> _Declared:
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
            return _Declared(max(width, left + across), max(height, top + down))
        elif block == 0x3B:
            raise problems.Malformed("the GIF image contains no picture")
        else:
            place += 1
    raise _too_many_pieces("GIF")


def _bmp(body: bytes | bytearray) -> _Declared:
    if body[14] == _BMP_CORE_HEADER:
        return _Declared(*struct.unpack_from("<HH", body, 18))
    width, height, _, compression = struct.unpack_from("<IIII", body, 18)
    if compression not in _BMP_UNCOMPRESSED:
        raise problems.UnsupportedFormat(
            "compressed BMP images are not supported; save the image uncompressed, or as PNG"
        )
    # A negative height means that the rows run from top to bottom.
    return _Declared(width, min(height, 2**32 - height))


def _tiff(body: bytes | bytearray) -> _Declared:
    order = "<" if body[:1] == b"I" else ">"
    (start,) = struct.unpack_from(order + "I", body, 4)
    if start < _TIFF_HEADER_BYTES:
        raise problems.Malformed("the TIFF image has no valid header")
    (entries,) = struct.unpack_from(order + "H", body, start)
    if entries > limits.IMAGE_PIECES:
        raise _too_many_pieces("TIFF")
    values = dict(_TIFF_DEFAULTS)
    for place in range(start + 2, start + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", body, place)
        # Such as the positions of a picture's strips.
        if kind not in _TIFF_BYTES and count > limits.IMAGE_PIECES:
            raise _too_many_pieces("TIFF")
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT, *_TIFF_DEFAULTS) and kind in _TIFF_TYPES:
            # Values of more than 4 bytes are elsewhere. One of each channel's values stands for all.
            code = order + _TIFF_TYPES[kind]
            is_elsewhere = count * struct.calcsize(code) > 4
            first = struct.unpack_from(order + "I", body, place + 8)[0] if is_elsewhere else place + 8
            (values[tag],) = struct.unpack_from(code, body, first)
    if _TIFF_WIDTH not in values or _TIFF_HEIGHT not in values:
        raise problems.Malformed("the TIFF image declares no size")
    bits, photometric = values[_TIFF_BITS], values[_TIFF_PHOTOMETRIC]
    if (
        values[_TIFF_COMPRESSION] not in _TIFF_COMPRESSIONS
        or photometric not in _TIFF_PHOTOMETRICS
        or bits not in _TIFF_DEPTHS
        or values[_TIFF_SAMPLES] != _TIFF_UNSIGNED
        # Pillow does not invert such a picture.
        or (bits == 16 and photometric == 0)
    ):
        raise problems.UnsupportedFormat(
            f"this kind of TIFF is not supported (compression {values[_TIFF_COMPRESSION]}, photometric {photometric}, "
            f"{bits} bits, sample format {values[_TIFF_SAMPLES]}); save it with 8 bits and without compression, or as "
            "PNG"
        )
    return _Declared(values[_TIFF_WIDTH], values[_TIFF_HEIGHT])


def _heic(body: bytes | bytearray) -> _Declared:
    return _heif(body, "HEIC")


def _avif(body: bytes | bytearray) -> _Declared:
    return _heif(body, "AVIF")


def _heif(body: bytes | bytearray, format_: str) -> _Declared:
    if len(body) > limits.CODEC_BYTES:
        raise _too_many_bytes(body, format_)
    return _Declared(*heif_headers.size(body, format_))


def _too_many_bytes(body: bytes | bytearray, format_: str) -> problems.TooLarge:
    return problems.TooLarge(
        f"the {format_} file is too large ({len(body)} bytes, limit {limits.CODEC_BYTES}); {problems.SMALLER_IMAGE}"
    )


_READERS: dict[str, Callable[[bytes | bytearray], _Declared]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "WEBP": _webp,
    "GIF": _gif,
    "BMP": _bmp,
    "TIFF": _tiff,
    "HEIC": _heic,
    "AVIF": _avif,
}
