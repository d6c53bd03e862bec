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

Prepare = Literal["auto", "none", "photo"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def decode(body: bytes | bytearray | memoryview, shape: tuple[int, int], prepare: Prepare = "auto") -> NDArray[np.uint8]:
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
        image = Image.open(io.BytesIO(body), formats=FORMATS)
    except UnidentifiedImageError:
        raise problems.UnsupportedFormat("not a PNG, JPEG, WebP, GIF or BMP image") from None
    if image.width * image.height > limits.PIXELS:
        raise problems.TooLarge(f"the image has {image.width}×{image.height} pixels; the limit is {limits.PIXELS}")
    height, width = shape
    try:
        if image.mode != "L" or image.size != (width, height) or prepare == "photo":
            image = image.convert("L").resize((width, height))
        return np.frombuffer(image.tobytes(), np.uint8).reshape(shape)
    except (OSError, ValueError, SyntaxError) as error:
        raise problems.Malformed(f"the {image.format} image is damaged: {error}") from None
