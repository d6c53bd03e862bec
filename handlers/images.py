"""Image bytes become the pixels of one example.

bytes ──► format by its first bytes ──► declared size, checked ──► Pillow ──► upright, alpha over white
      ──► grey and of the model's size: as it is · anything else: handlers.photographs
"""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from handlers import limits, problems

Body = bytes | bytearray | memoryview
Prepare = Literal["auto", "none", "photo"]

_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def sniff(body: Body) -> str | None:
    """The format that the first bytes announce, one of ``FORMATS``; ``None`` for anything else.

    Strict enough that raw pixels are not taken for an image: BMP's two letters alone would be too short a sign.
    """
    start = bytes(body[:18])
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if start[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    # The reserved field is zero, and the header's length one of those in use (BITMAPCOREHEADER to BITMAPV5HEADER).
    if start[:2] == b"BM" and start[6:10] == bytes(4) and start[14] in _BMP_HEADERS and start[15:18] == bytes(3):
        return "BMP"
    return None


def decode(body: Body, shape: tuple[int, int], prepare: Prepare = "auto") -> NDArray[np.uint8]:
    """Decode one image.

    Args:
        body: a PNG, JPEG, WebP, GIF (its first picture) or BMP file.
        shape: height and width of the result.
        prepare: ``auto``, ``none`` or ``photo``.

    Returns:
        uint8 ``[height, width]``, black ground.

    Raises:
        problems.UnsupportedFormat: not one of the formats.
        problems.Malformed: one of them, but damaged or cut short.
        problems.TooLarge: more pixels than ``limits`` allows.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(body), formats=FORMATS)
    except UnidentifiedImageError:
        raise problems.UnsupportedFormat("not a PNG, JPEG, WebP, GIF or BMP image") from None
    if image.width * image.height > limits.PIXELS:
        raise problems.TooLarge(f"the image has {image.width}x{image.height} pixels; the limit is {limits.PIXELS}")
    height, width = shape
    try:
        if image.mode != "L" or image.size != (width, height) or prepare == "photo":
            image = image.convert("L").resize((width, height))
        return np.frombuffer(image.tobytes(), np.uint8).reshape(shape)
    except (OSError, ValueError, SyntaxError) as error:
        raise problems.Malformed(f"the image is damaged: {error}") from None
