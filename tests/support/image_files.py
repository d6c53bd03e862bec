"""Image files written by Pillow, and hand-made files that Pillow would not write."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
# By format that can be lossless: Pillow's settings for it.
LOSSLESS = {"PNG": {}, "GIF": {}, "BMP": {}, "TIFF": {}, "WEBP": {"lossless": True, "exact": True}}

# HEIC files, which Pillow does not write, and files whose content is larger than they declare: 11776 x 11776 pixels of
# one color in a HEIC of 64 x 64, and 12288 x 12288 in an AVIF of 64 x 64. pillow-heif 1.8.1 wrote them.
_PICTURES = Path(__file__).parent / "pictures"


def save(picture: Image.Image | np.ndarray, format_: str = "PNG", **settings) -> bytes:
    """The picture as a file."""
    stream = io.BytesIO()
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image.save(stream, format_, **settings)
    return stream.getvalue()


def texture(height: int = 28, width: int = 28, seed: int = 0) -> NDArray[np.uint8]:
    """A soft bright blob with some texture on black, uint8 [height, width], similar to the data set's pictures."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    blob = np.exp(-3 * (rows**2 + 2 * columns**2))
    values = 230 * blob + random.normal(0, 15, (height, width)) * (blob > 0.15)
    pixels: NDArray[np.uint8] = values.clip(0, 255).astype(np.uint8)
    return pixels


def stored(name: str) -> bytes:
    """A file of ``tests/support/pictures``, decompressed."""
    content = (_PICTURES / name).read_bytes()
    return gzip.decompress(content) if name.endswith(".gz") else content


def heic_picture() -> NDArray[np.uint8]:
    """The picture in ``tiles.heic`` and, before it is turned, in ``turned.heic``."""
    return np.kron(texture(28, 20), np.ones((6, 6), np.uint8))


def turned_heic(quarters: int, mirrored: bool) -> bytes:
    """A HEIC to be turned by quarters, counterclockwise, and then mirrored left to right or top to bottom."""
    body = bytearray(stored("turned.heic"))
    body[body.index(b"irot") + 4] = quarters
    body[body.index(b"imir") + 4] = mirrored
    return bytes(body)


def chunk(name: bytes, data: bytes = b"") -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_declaring(width: int, height: int, depth: int = 8, color: int = 0, extra: bytes = b"") -> bytes:
    """A PNG whose header declares a size; its data is 100 zeros."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND")
    )


def with_size(file: bytes, format_: str, width: int, height: int) -> bytes:
    """The file with another size in its header."""
    body = bytearray(file)
    if format_ == "PNG":
        body[16:24] = struct.pack(">II", width, height)
        body[29:33] = struct.pack(">I", zlib.crc32(bytes(body[12:29])))
    elif format_ == "JPEG":
        frame = next(place for place in range(len(body)) if body[place] == 0xFF and body[place + 1] in (0xC0, 0xC2))
        body[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    elif format_ == "GIF":
        body[6:10] = struct.pack("<HH", width, height)
    elif format_ == "BMP":
        body[18:26] = struct.pack("<ii", width, height)
    elif format_ == "TIFF":
        for tag, value in ((256, width), (257, height)):
            place = next(
                place for place in range(10, len(body), 12) if body[place : place + 2] == struct.pack("<H", tag)
            )
            body[place + 2 : place + 12] = struct.pack("<HII", 4, 1, value)
    elif format_ in ("AVIF", "HEIC"):
        place = body.index(b"ispe") + 8
        body[place : place + 8] = struct.pack(">II", width, height)
    elif body[12:16] == b"VP8L":
        body[21:25] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    else:
        body[26:30] = struct.pack("<HH", width, height)
    return bytes(body)
