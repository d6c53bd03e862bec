"""Photographs become pictures like those that the networks were trained on.

The conversion is the one published with the data set (Xiao, Rasul, Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset
for Benchmarking Machine Learning Algorithms", section 2), which started from pictures on a nearly white ground:

    1. trim edges that are close to the colour of the corner pixels: within 5 % of the largest distance in RGB
    2. resize the longest edge to 28
    3. sharpen with a Gaussian operator of radius and standard deviation 1.0
    4. extend the shortest edge to 28, with the picture in the centre
    5. negate, and turn into 8-bit grey

An evenly coloured ground is made white before step 2. Ground is what is close to the corners' colour and connected to
the picture's edge; beside it lie pixels that mix ground and item, and the ground's share in them is made white too.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

# 5 % of the distance between black and white in RGB.
TOLERANCE = 0.05 * 255 * 3**0.5
# How far from the ground a pixel may mix item and ground, in pixels of the result.
MIXED = 0.6
# Pixels of the picture for one of the result: more of them change nothing, and cost.
DETAIL = 4
# Per cent of the difference between the picture and its blurred copy that sharpening adds. More of it takes pictures
# further from the data set's own.
SHARPENING = 50
# ITU-R BT.601, as Pillow's conversion to grey.
GREY = np.array([0.299, 0.587, 0.114], np.float32)
WHITE = 255

Mask = NDArray[np.bool_]


def convert(picture: Image.Image, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Convert a photograph.

    Args:
        picture: RGB, any size; cost grows with its pixels.
        shape: height and width of the result.

    Returns:
        uint8 ``[height, width]`` on a black ground; all black if the picture has one colour only.
    """
    found = _trimmed(picture)
    if found is None:
        return np.zeros(shape, np.uint8)
    unit = _unit(found.box, shape)
    factor = int(unit / DETAIL)
    if factor > 1:
        left, top, right, bottom = found.box
        # A rim of ground stays around the item, in whole steps of the factor, so that the item's edges stay sharp.
        rim = DETAIL * factor
        start = max(left - rim, left % factor), max(top - rim, top % factor)
        stop = min(right + rim, picture.width), min(bottom + rim, picture.height)
        found = _trimmed(picture.crop((*start, *stop)).reduce(factor)) or found
        unit = _unit(found.box, shape)
    left, top, right, bottom = found.box
    grey = _on_white(found, MIXED * unit)[top:bottom, left:right]
    item = Image.fromarray(grey.clip(0, WHITE).round().astype(np.uint8))
    size = max(round(item.width / unit), 1), max(round(item.height / unit), 1)
    item = item.resize(size, Image.Resampling.BOX)
    item = item.filter(ImageFilter.UnsharpMask(radius=1, percent=SHARPENING, threshold=0))
    height, width = shape
    result = Image.new("L", (width, height), WHITE)
    result.paste(item, ((width - item.width) // 2, (height - item.height) // 2))
    return WHITE - np.asarray(result)


class _Trimmed(NamedTuple):
    """A picture and where its item is: left, top, right and bottom, the last two beyond it."""

    pixels: NDArray[np.float32]
    ground: NDArray[np.float32]
    distance: NDArray[np.float32]
    box: tuple[int, int, int, int]


def _trimmed(picture: Image.Image) -> _Trimmed | None:
    """Tell the item from the ground by the corners' colour; ``None`` if there is nothing but ground."""
    pixels = np.asarray(picture).astype(np.float32)
    ground = _ground(pixels)
    difference = pixels - ground
    distance = np.sqrt(np.einsum("ijk,ijk->ij", difference, difference))
    far = distance > TOLERANCE
    rows, columns = np.flatnonzero(far.any(1)), np.flatnonzero(far.any(0))
    if not len(rows):
        return None
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return _Trimmed(pixels, ground, distance, box)


def _ground(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The colour of the corner that most of the picture's edge is like, where the item reaches into some corners."""
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
    near = ((corners[:, None] - edge) ** 2).sum(2) <= TOLERANCE**2
    ground: NDArray[np.float32] = edge[near[near.sum(1).argmax()]].mean(0)
    return ground


def _unit(box: tuple[int, int, int, int], shape: tuple[int, int]) -> float:
    """How many pixels of a picture make one of the result, if what is in the box shall just fit."""
    left, top, right, bottom = box
    return max((bottom - top) / shape[0], (right - left) / shape[1])


def _on_white(found: _Trimmed, reach: float) -> NDArray[np.float32]:
    """The picture in grey with white ground; a mixed pixel's share of it is told from how near its neighbours come."""
    grey, ground = found.pixels @ GREY, float(found.ground @ GREY)
    region = connected(found.distance <= TOLERANCE)
    steps = max(round(reach), 1)
    share = 1 - found.distance / np.maximum(spread(found.distance, steps), TOLERANCE)
    mended = np.where(spread(region, steps), grey + share * (WHITE - ground), grey)
    return np.where(region, WHITE, mended)


def spread(values: NDArray[Any], steps: int) -> NDArray[Any]:
    """The largest value within ``steps`` rows and columns of each place."""
    for _ in range(2):
        padded = np.pad(values, ((steps, steps), (0, 0)), "edge")
        shifted = [padded[start : start + len(values)] for start in range(2 * steps + 1)]
        values = functools.reduce(np.maximum, shifted).T
    return values


def connected(mask: Mask) -> Mask:
    """The part of ``mask`` that is connected to its edges, across sides and not corners."""
    region: Mask = mask.copy()
    region[1:-1, 1:-1] = False
    size = -1
    # Each pass fills whole runs, so few are needed; the bound keeps a maze from taking hundreds.
    for _ in range(16):
        region = _filled(_filled(region, mask).T, mask.T).T
        before, size = size, int(region.sum())
        if size == before:
            break
    return region


def _filled(region: Mask, mask: Mask) -> Mask:
    """Extend ``region`` along the rows of ``mask``: a run of mask that it touches becomes part of it."""
    starts = mask.copy()
    starts[:, 1:] &= ~mask[:, :-1]
    runs = np.cumsum(starts).reshape(mask.shape)
    touched = np.zeros(int(runs[-1, -1]) + 1, bool)
    touched[runs[region]] = True
    filled: Mask = touched[runs] & mask
    return filled
