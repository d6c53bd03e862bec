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

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

# 5 % of the distance between black and white in RGB.
TOLERANCE = 0.05 * 255 * 3**0.5
# How far from the ground a pixel may mix item and ground, in pixels of the result.
MIXED = 0.6
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
    pixels = np.asarray(picture).astype(np.float32)
    ground = np.median(pixels[[0, 0, -1, -1], [0, -1, 0, -1]], axis=0)
    distance = np.sqrt(((pixels - ground) ** 2).sum(2))
    near = distance <= TOLERANCE
    rows, columns = np.flatnonzero(~near.all(1)), np.flatnonzero(~near.all(0))
    if not len(rows):
        return np.zeros(shape, np.uint8)
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    height, width = shape
    size = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
    scale = min(height / size[0], width / size[1])
    grey = _on_white(pixels @ GREY, float(ground @ GREY), distance, connected(near), MIXED / scale)
    item = Image.fromarray(grey[box].clip(0, WHITE).round().astype(np.uint8))
    item = item.resize((max(round(size[1] * scale), 1), max(round(size[0] * scale), 1)), Image.Resampling.BOX)
    item = item.filter(ImageFilter.UnsharpMask(radius=1, percent=SHARPENING, threshold=0))
    result = Image.new("L", (width, height), WHITE)
    result.paste(item, ((width - item.width) // 2, (height - item.height) // 2))
    return WHITE - np.asarray(result)


def _on_white(
    grey: NDArray[np.float32], ground: float, distance: NDArray[np.float32], region: Mask, reach: float
) -> NDArray[np.float32]:
    """Replace the ground by white; a mixed pixel's share of ground is told from its neighbours' distance to it."""
    steps = max(round(reach), 1)
    mixed = spread(region, steps)
    share = np.where(mixed, 1 - distance / np.maximum(spread(distance, steps), TOLERANCE), 0)
    return np.where(region, WHITE, grey + share * (WHITE - ground))


def spread(values: NDArray[Any], steps: int) -> NDArray[Any]:
    """The largest value within ``steps`` rows and columns of each place."""
    for axis in (0, 1):
        found = values.copy()
        for step in range(1, min(steps, values.shape[axis] - 1) + 1):
            ahead = [slice(None)] * 2
            behind = [slice(None)] * 2
            ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
            np.maximum(found[tuple(behind)], values[tuple(ahead)], out=found[tuple(behind)])
            np.maximum(found[tuple(ahead)], values[tuple(behind)], out=found[tuple(ahead)])
        values = found
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
