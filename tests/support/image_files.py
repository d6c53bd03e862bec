"""Image files written by Pillow, and hand-made files that Pillow would not write."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
# By format that can be lossless: Pillow's settings for it.
LOSSLESS = {"PNG": {}, "GIF": {}, "BMP": {}, "WEBP": {"lossless": True, "exact": True}}


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
    elif body[12:16] == b"VP8L":
        body[21:25] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    else:
        body[26:30] = struct.pack("<HH", width, height)
    return bytes(body)
