"""Photographs become pictures like those that the networks were trained on.

The conversion is the one published with the data set (Xiao, Rasul, Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset
for Benchmarking Machine Learning Algorithms", section 2). It started from pictures on a nearly white background:

    1. trim edges that are close to the color of the corner pixels: within 5 % of the largest distance in RGB
    2. resize the longest edge to 28
    3. sharpen with a Gaussian operator of radius and standard deviation 1.0
    4. extend the shortest edge to 28, with the picture in the center
    5. negate, and convert to 8-bit gray

An evenly colored background is made white before step 2. The background is every pixel close to the corners' color and
connected to the picture's edge. Pixels beside it mix background and item; their share of background is made white too.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

# A pixel this close to the background's color is background: 5 % of the distance between black and white in RGB.
_TOLERANCE = 0.05 * 255 * 3**0.5
# Pixels up to this far from the background mix it with the item, in pixels of the result.
_MIXED_REACH_PX = 0.6
# The picture is reduced to this many pixels per pixel of the result. More cost time and change nothing.
_DETAIL_PX = 4
# Share of the difference between the picture and its blurred copy that sharpening adds. A larger share makes pictures
# less like the data set's own.
_SHARPENING_PERCENT = 50
# ITU-R BT.601, as in Pillow's conversion to gray.
_GRAY_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)
_WHITE = 255
# Passes of ``connected``. Each fills whole runs, so that few are needed; the bound keeps a maze from taking hundreds.
_MAX_PASSES = 16

_Mask = NDArray[np.bool_]


def convert(picture: Image.Image, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Convert a photograph.

    Args:
        picture: RGB, any size; the cost grows with the number of pixels.
        shape: height and width of the result.

    Returns:
        uint8 ``[height, width]`` on a black background; all black if the picture has a single color.
    """
    trimmed = _trimmed(picture)
    if trimmed is None:
        return np.zeros(shape, np.uint8)
    unit = _unit(trimmed.box, shape)
    factor = int(unit / _DETAIL_PX)
    if factor > 1:
        left, top, right, bottom = trimmed.box
        # Keep a margin of background in whole steps of the factor, so that the item's edges stay sharp.
        margin = _DETAIL_PX * factor
        start = max(left - margin, left % factor), max(top - margin, top % factor)
        stop = min(right + margin, picture.width), min(bottom + margin, picture.height)
        trimmed = _trimmed(picture.crop((*start, *stop)).reduce(factor)) or trimmed
        unit = _unit(trimmed.box, shape)
    left, top, right, bottom = trimmed.box
    gray = _on_white(trimmed, _MIXED_REACH_PX * unit)[top:bottom, left:right]
    item = Image.fromarray(gray.clip(0, _WHITE).round().astype(np.uint8))
    size = max(round(item.width / unit), 1), max(round(item.height / unit), 1)
    item = item.resize(size, Image.Resampling.BOX)
    item = item.filter(ImageFilter.UnsharpMask(radius=1, percent=_SHARPENING_PERCENT, threshold=0))
    height, width = shape
    result = Image.new("L", (width, height), _WHITE)
    result.paste(item, ((width - item.width) // 2, (height - item.height) // 2))
    return _WHITE - np.asarray(result)


class _Trimmed(NamedTuple):
    """A picture and the box of its item: left, top, right and bottom, the last two exclusive.

    Attributes:
        pixels: float32 ``[height, width, 3]``.
        background: its color, float32 ``[3]``.
        distance: of each pixel from the background's color, float32 ``[height, width]``.
    """

    pixels: NDArray[np.float32]
    background: NDArray[np.float32]
    distance: NDArray[np.float32]
    box: tuple[int, int, int, int]


def _trimmed(picture: Image.Image) -> _Trimmed | None:
    """Separate the item from the background by the corners' color; ``None`` if there is only background."""
    pixels = np.asarray(picture).astype(np.float32)
    background = _background(pixels)
    difference = pixels - background
    distance = np.sqrt(np.einsum("ijk,ijk->ij", difference, difference))
    far = distance > _TOLERANCE
    rows, columns = np.flatnonzero(far.any(1)), np.flatnonzero(far.any(0))
    if not len(rows):
        return None
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return _Trimmed(pixels, background, distance, box)


def _background(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The background's color: that of the corner which most of the edge resembles, because the item may cover some."""
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
    near = ((corners[:, None] - edge) ** 2).sum(2) <= _TOLERANCE**2
    background: NDArray[np.float32] = edge[near[near.sum(1).argmax()]].mean(0)
    return background


def _unit(box: tuple[int, int, int, int], shape: tuple[int, int]) -> float:
    """Pixels of the picture per pixel of the result, if the box just fits into the result."""
    left, top, right, bottom = box
    return max((bottom - top) / shape[0], (right - left) / shape[1])


def _on_white(trimmed: _Trimmed, reach: float) -> NDArray[np.float32]:
    """The picture in gray on white; mixed pixels lie within ``reach`` pixels of the background.

    A mixed pixel's share of background follows from its distance from the background's color, compared with the largest
    distance nearby.
    """
    gray, background = trimmed.pixels @ _GRAY_WEIGHTS, float(trimmed.background @ _GRAY_WEIGHTS)
    region = connected(trimmed.distance <= _TOLERANCE)
    steps = max(round(reach), 1)
    share = 1 - trimmed.distance / np.maximum(spread(trimmed.distance, steps), _TOLERANCE)
    whitened = np.where(spread(region, steps), gray + share * (_WHITE - background), gray)
    return np.where(region, _WHITE, whitened)


def spread(values: NDArray[Any], steps: int) -> NDArray[Any]:
    """The largest value within ``steps`` rows and columns of each place."""
    for _ in range(2):
        padded = np.pad(values, ((steps, steps), (0, 0)), "edge")
        shifted = [padded[start : start + len(values)] for start in range(2 * steps + 1)]
        values = functools.reduce(np.maximum, shifted).T
    return values


def connected(mask: _Mask) -> _Mask:
    """The part of ``mask`` that is connected to its edges, through sides and not corners."""
    region: _Mask = mask.copy()
    region[1:-1, 1:-1] = False
    size = -1
    for _ in range(_MAX_PASSES):
        region = _filled(_filled(region, mask).T, mask.T).T
        before, size = size, int(region.sum())
        if size == before:
            break
    return region


def _filled(region: _Mask, mask: _Mask) -> _Mask:
    """Extend ``region`` along the rows of ``mask``: each run of ``mask`` that it touches becomes part of it."""
    starts = mask.copy()
    starts[:, 1:] &= ~mask[:, :-1]
    runs = np.cumsum(starts).reshape(mask.shape)
    touched = np.zeros(int(runs[-1, -1]) + 1, bool)
    touched[runs[region]] = True
    filled: _Mask = touched[runs] & mask
    return filled
