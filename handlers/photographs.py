"""Photographs become pictures like those that the networks were trained on.

The conversion is the one published with the data set (Xiao, Rasul, Vollgraf 2017, Fashion-MNIST: a Novel Image Dataset
for Benchmarking Machine Learning Algorithms, section 2), which started from pictures on a light grey ground:

    1. trim edges that are close to the colour of the corner pixels: within 5 % of the largest possible distance in RGB
    2. resize the longest edge to 28
    3. sharpen with a Gaussian operator of radius and standard deviation 1.0
    4. extend the shortest edge to 28, the picture in the centre
    5. negate, and turn into 8-bit grey

Before them an evenly coloured ground is made white, which those pictures had already.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

# 5 % of the distance between black and white in RGB.
TOLERANCE = 0.05 * 255 * 3**0.5
SHARPEN = 0
DILATE = 0.0
RES = Image.Resampling.BOX
FLOOD = True


def convert(picture: Image.Image, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Convert a photograph.

    Args:
        picture: RGB, any size.
        shape: height and width of the result.

    Returns:
        uint8 ``[height, width]`` on a black ground.
    """
    pixels = np.asarray(picture).astype(np.float32)
    ground = np.median(pixels[[0, 0, -1, -1], [0, -1, 0, -1]], axis=0)
    near = ((pixels - ground) ** 2).sum(2) <= TOLERANCE**2
    rows, columns = np.flatnonzero(~near.all(1)), np.flatnonzero(~near.all(0))
    if not len(rows):
        return np.zeros(shape, np.uint8)
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    grey = np.asarray(picture.convert("L"))
    if FLOOD:
        region = outside(near)
        k = DILATE * max(bottom - top, right - left) / 28
        if k >= 1:
            region = (
                np.asarray(
                    Image.fromarray((region * 255).astype(np.uint8)).filter(
                        ImageFilter.MaxFilter(2 * int(round(k)) + 1)
                    )
                )
                > 0
            )
        grey = np.where(region, 255, grey)
    item = Image.fromarray(grey[top:bottom, left:right].astype(np.uint8))
    h, w = shape
    scale = min(h / item.height, w / item.width)
    item = item.resize((max(round(item.width * scale), 1), max(round(item.height * scale), 1)), RES)
    if SHARPEN:
        item = item.filter(ImageFilter.UnsharpMask(1.0, SHARPEN, 0))
    canvas = Image.new("L", (w, h), 255)
    canvas.paste(item, ((w - item.width) // 2, (h - item.height) // 2))
    return 255 - np.asarray(canvas)


def outside(near: NDArray[np.bool_]) -> NDArray[np.bool_]:
    region = np.zeros_like(near)
    region[0], region[-1], region[:, 0], region[:, -1] = near[0], near[-1], near[:, 0], near[:, -1]
    count = 0
    while True:
        for axis in (0, 1):
            region = _sweep(region, near, axis)
        new = int(region.sum())
        if new == count:
            return region
        count = new


def _sweep(region, near, axis):
    # runs of near along axis: a run with any reached pixel becomes reached
    a = np.moveaxis(near, axis, 1)
    r = np.moveaxis(region, axis, 1)
    starts = a & ~np.pad(a, ((0, 0), (1, 0)))[:, :-1]
    label = np.cumsum(starts.ravel()).reshape(a.shape) * a
    hit = np.zeros(label.max() + 1, bool)
    hit[label[r & a]] = True
    hit[0] = False
    return np.moveaxis(hit[label], 1, axis)
