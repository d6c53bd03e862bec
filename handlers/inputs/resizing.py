"""A picture becomes one of the network's size, by the rule with which the network was trained.

    stretch    height and width are scaled by themselves
    fit        the whole picture, with black beside it
    crop       the middle of the picture

Sizes are changed with bilinear weights over all pixels that fall into one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

_BILINEAR = Image.Resampling.BILINEAR

_RULES: dict[str, Callable[[Image.Image, tuple[int, int]], Image.Image]] = {
    "stretch": lambda picture, size: picture.resize(size, _BILINEAR),
    "fit": lambda picture, size: ImageOps.pad(picture, size, _BILINEAR),
    "crop": lambda picture, size: ImageOps.fit(picture, size, _BILINEAR),
}


def resized(picture: Image.Image, shape: tuple[int, ...], rule: str) -> NDArray[np.uint8]:
    """The pixels of a picture in the network's size and colors.

    Args:
        picture: of mode L or RGB.
        shape: of the result: height and width for gray, or 3, height and width for red, green and blue.
        rule: one of the module's table.

    Returns:
        uint8 of ``shape``.
    """
    picture = picture.convert("L" if len(shape) == 2 else "RGB")
    size = shape[-1], shape[-2]
    if picture.size != size:
        picture = _RULES[rule](picture, size)
    pixels = np.asarray(picture)
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
