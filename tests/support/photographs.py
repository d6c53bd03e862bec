"""Photographs of an item on a floor, and their conversion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handlers.inputs import photographs


def floor(height: int = 240, width: int = 180) -> NDArray[np.uint8]:
    """Planks: stripes of two shades of brown with noise, uint8 [height, width, 3]."""
    random = np.random.default_rng(0)
    stripes = np.where(np.arange(width) // 15 % 2, 30, 0)[np.newaxis, :, np.newaxis]
    return (np.array([140, 100, 60]) + stripes + random.integers(-12, 13, (height, width, 1))).astype(np.uint8)


def photograph(
    color: tuple[int, int, int] = (40, 60, 150), box: tuple[int, int, int, int] = (40, 50, 140, 200)
) -> Image.Image:
    """An item of one color on the floor; the box is left, top, right, bottom."""
    picture = Image.fromarray(floor())
    picture.paste(color, box)
    return picture


def convert(picture: Image.Image, shape: tuple[int, int], *, always_negate: bool = False) -> NDArray[np.uint8]:
    """The pixels of ``photographs.convert``."""
    return photographs.convert(picture, shape, always_negate=always_negate).pixels
