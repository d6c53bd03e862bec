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
If light falls unevenly on the background, a smooth surface through the edge's pixels takes the place of the one color.

On any other background, ``segmentation`` finds the item.

Two kinds of picture are treated differently: one in the data set's own look, gray on black, is not negated, and of one
with transparency the item's outline is known.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from handlers.inputs import regions, segmentation

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
# Up to this level, a background is black; JPEG leaves some noise there.
_BLACK = 12
# The largest mean difference between the channels of a gray picture; JPEG leaves some too.
_GRAY_SPREAD = 6
# The least difference between an item's inside and its outline that is a fade.
_FADE = 6
# A background is even if its color is found on this share of the edge; an item may cover the rest.
_EVEN_SHARE = 0.95
# It is also plain on this share, if its pixels differ from it by no more than this, as JPEG's noise does.
_BARE_SHARE, _BARE_NOISE = 0.4, 4
# Distance in RGB up to which a pixel of the edge belongs to the surface; less than _TOLERANCE, because the surface
# follows the light. Fits on 200 pictures with light falling by 30 to 80 levels gave the same accuracy from 6 to 15.
_SURFACE_TOLERANCE = 10
# A surface on less of the edge than this follows chance.
_SURFACE_SHARE = 0.6
# A surface explains at least this much more of the edge than one color does; else an item on the edge bends it.
_SURFACE_GAIN = 0.05
# Passes of the fit; the weights of a fit settle in some 10.
_FITS = 12
# Difference between a surface's lightest and darkest levels; one that differs more follows the item.
_LARGEST_FALL = 110
# An item that is cut out is light if it is lighter than this. Its negative would be nearly black, as only 0.1 % of the
# data set's items are, so its own light is shown.
_LIGHT = 192
# Share of an item's pixels left out at each end when its darkest and lightest levels are measured.
_OUTLIERS_PERCENT = 2
# An item of fewer levels than this has no relief; enlarging its contrast further would show noise.
_LEAST_CONTRAST = 8


class Conversion(NamedTuple):
    """A converted picture.

    Attributes:
        pixels: uint8 ``[height, width]`` on a black background; all black if the picture has a single color.
        outline: of the item, if the picture is a photograph on a background that is not plain: L, of the picture's
            size, 255 where the item is, 0 elsewhere.
    """

    pixels: NDArray[np.uint8]
    outline: Image.Image | None = None


def convert(picture: Image.Image, shape: tuple[int, int], *, always_negate: bool = False) -> Conversion:
    """Convert a photograph.

    Args:
        picture: RGB, any size; the cost grows with the number of pixels.
        shape: height and width of the result.
        always_negate: also negate a picture in the data set's own look.
    """
    trimmed = _trimmed(picture)
    if trimmed is None:
        return Conversion(np.zeros(shape, np.uint8))
    if not trimmed.is_plain and (outline := segmentation.outline(picture)) is not None:
        on_white = Image.new("RGB", picture.size, "white")
        on_white.paste(picture, mask=outline)
        return Conversion(cut_out(on_white, outline, shape), outline)
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
    if not always_negate and _is_gray_on_black(trimmed):
        gray = trimmed.pixels @ _GRAY_WEIGHTS
        height, width = shape
        detailed = _fitted(gray, trimmed.box, unit / _DETAIL_PX, (height * _DETAIL_PX, width * _DETAIL_PX))
        if _fades_to_black(detailed):
            return Conversion(_fitted(gray, trimmed.box, unit, shape))
    bright = _WHITE - _on_white(trimmed, _MIXED_REACH_PX * unit)
    return Conversion(_fitted(bright, trimmed.box, unit, shape, _SHARPENING_PERCENT))


def cut_out(picture: Image.Image, outline: Image.Image, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Convert a picture whose item is cut out.

    Args:
        picture: RGB, on a white background, any size.
        outline: L, of the same size: 255 where the item is, 0 elsewhere.
        shape: height and width of the result.

    Returns:
        uint8 ``[height, width]`` on a black background; all black if the outline is empty.
    """
    share = np.asarray(outline).astype(np.float32) / 255
    inside = share >= 0.5
    box = regions.box(inside)
    if box is None:
        return np.zeros(shape, np.uint8)
    unit = _unit(box, shape)
    gray = np.asarray(picture).astype(np.float32) @ _GRAY_WEIGHTS
    low, high = np.percentile(gray[inside], (_OUTLIERS_PERCENT, 100 - _OUTLIERS_PERCENT))
    if low >= _LIGHT:
        values = (gray - low) * (_WHITE / max(high - low, _LEAST_CONTRAST))
        return _fitted(values.clip(0, _WHITE) * share, box, unit, shape)
    return _fitted(_WHITE - gray, box, unit, shape, _SHARPENING_PERCENT)


class _Trimmed(NamedTuple):
    """A picture and the box of its item: left, top, right and bottom, the last two exclusive.

    Attributes:
        pixels: float32 ``[height, width, 3]``.
        background: its color, float32 ``[3]``, or that at each pixel, ``[height, width, 3]``.
        is_plain: whether the background has that color or light alone; otherwise it is a floor, a carpet, a bed.
        distance: of each pixel from the background's color, float32 ``[height, width]``.
    """

    pixels: NDArray[np.float32]
    background: NDArray[np.float32]
    is_plain: bool
    distance: NDArray[np.float32]
    box: tuple[int, int, int, int]


def _trimmed(picture: Image.Image) -> _Trimmed | None:
    """Separate the item from the background by the color of the edge; ``None`` if there is only background."""
    pixels = np.asarray(picture).astype(np.float32)
    background, is_plain = _background(pixels)
    difference = pixels - background
    distance = np.sqrt(np.einsum("ijk,ijk->ij", difference, difference))
    box = regions.box(distance > _TOLERANCE)
    return None if box is None else _Trimmed(pixels, background, is_plain, distance, box)


def _background(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], bool]:
    """The background's color, ``[3]`` or at each pixel, and whether the background is plain.

    One color: that of the corner which most of the edge resembles, because the item may cover some. Otherwise a
    quadratic surface through the edge's pixels, by iteratively reweighted least squares with the weights of Geman and
    McClure (Holland, Welsch 1977, "Robust Regression Using Iteratively Reweighted Least-Squares").
    """
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
    near = ((corners[:, None] - edge) ** 2).sum(2) <= _TOLERANCE**2
    best = near[near.sum(1).argmax()]
    color: NDArray[np.float32] = edge[best].mean(0)
    is_plain = _is_plain(best, ((edge - color) ** 2).sum(1))
    # On black no light is seen.
    if best.mean() >= _EVEN_SHARE or color.max() <= _BLACK:
        return color, is_plain
    height, width = pixels.shape[:2]
    down, across = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    y = np.concatenate([np.full(width, -1), np.full(width, 1), down, down])
    x = np.concatenate([across, across, np.full(height, -1), np.full(height, 1)])
    terms = _terms(x, y).astype(np.float32)
    weights = np.ones(len(edge), np.float32)
    for _ in range(_FITS):
        weighted = terms * weights[:, None]
        # The small diagonal lets a picture of one row or column be solved too.
        fitted = np.linalg.solve(
            weighted.T @ terms + 1e-3 * np.eye(terms.shape[1], dtype=np.float32), weighted.T @ edge
        )
        error = np.sqrt(((terms @ fitted - edge) ** 2).sum(1))
        weights = 1 / (1 + (error / _SURFACE_TOLERANCE) ** 2) ** 2
    inliers = error <= _SURFACE_TOLERANCE
    if inliers.mean() < max(_SURFACE_SHARE, best.mean() + _SURFACE_GAIN):
        return color, is_plain
    yy, xx = np.meshgrid(down, across, indexing="ij")
    surface: NDArray[np.float32] = _terms(xx, yy) @ fitted
    is_light = _TOLERANCE / 2 < np.ptp(surface, axis=(0, 1)).max() <= _LARGEST_FALL
    return (surface, _is_plain(inliers, error**2)) if is_light else (color, is_plain)


def _is_plain(near: regions.Mask, squares: NDArray[np.float32]) -> bool:
    """Whether nearly all of the edge is background, or much of it without any texture, and an item covers the rest.

    Args:
        near: the edge's pixels that are background.
        squares: of each pixel's distance from the background's color.
    """
    is_bare = near.mean() >= _BARE_SHARE and squares[near].mean() <= _BARE_NOISE**2
    return bool(near.mean() >= _EVEN_SHARE or is_bare)


def _terms(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """The terms of a quadratic surface at each place."""
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], -1)


def _unit(box: tuple[int, int, int, int], shape: tuple[int, int]) -> float:
    """Pixels of the picture per pixel of the result, if the box just fits into the result."""
    left, top, right, bottom = box
    return max((bottom - top) / shape[0], (right - left) / shape[1])


def _fitted(
    values: NDArray[np.float32],
    box: tuple[int, int, int, int],
    unit: float,
    shape: tuple[int, int],
    sharpening_percent: int = 0,
) -> NDArray[np.uint8]:
    """The box of ``values`` (0-255, bright item), ``unit`` times smaller, in the center of ``shape`` on black."""
    left, top, right, bottom = box
    item = Image.fromarray(values[top:bottom, left:right].clip(0, _WHITE).round().astype(np.uint8))
    size = max(round(item.width / unit), 1), max(round(item.height / unit), 1)
    item = item.resize(size, Image.Resampling.BOX)
    if sharpening_percent:
        item = item.filter(ImageFilter.UnsharpMask(radius=1, percent=sharpening_percent, threshold=0))
    height, width = shape
    result = Image.new("L", (width, height))
    result.paste(item, ((width - item.width) // 2, (height - item.height) // 2))
    return np.asarray(result)


def _is_gray_on_black(trimmed: _Trimmed) -> bool:
    """Whether the picture has the colors of the data set's: gray on black."""
    if trimmed.background.ndim > 1 or trimmed.background.max() > _BLACK:
        return False
    left, top, right, bottom = trimmed.box
    return bool(np.ptp(trimmed.pixels[top:bottom, left:right], axis=2).mean() <= _GRAY_SPREAD)


def _fades_to_black(item: NDArray[np.uint8]) -> bool:
    """Whether an item on black is darker along its outline than inside, as 98 % of the data set's pictures are.

    The negative of such a picture has a bright outline. The outermost half pixel of the result does not count, because
    enlarging mixed it with the background.

    Args:
        item: with ``_DETAIL_PX`` pixels per pixel of the result.
    """
    inside = item > _BLACK
    # Of each item's pixel, the distance from the background along the rows and columns.
    depth = np.full(item.shape, np.iinfo(np.int64).max)
    for turns in range(4):
        steps = np.rot90(inside, turns).cumsum(1)
        turned = np.rot90(depth, turns)
        np.minimum(turned, steps, out=turned)
    outline = inside & (depth > _DETAIL_PX // 2) & (depth <= _DETAIL_PX)
    rest = inside & (depth > _DETAIL_PX)
    return bool(outline.any() and rest.any() and item[outline].mean() < item[rest].mean() - _FADE)


def _on_white(trimmed: _Trimmed, reach: float) -> NDArray[np.float32]:
    """The picture in gray on white; mixed pixels lie within ``reach`` pixels of the background.

    A mixed pixel's share of background follows from its distance from the background's color, compared with the largest
    distance nearby.
    """
    gray, background = trimmed.pixels @ _GRAY_WEIGHTS, trimmed.background @ _GRAY_WEIGHTS
    near = trimmed.distance <= _TOLERANCE
    region = regions.connected(near, regions.edge(near))
    steps = max(round(reach), 1)
    share = 1 - trimmed.distance / np.maximum(regions.spread(trimmed.distance, steps), _TOLERANCE)
    whitened = np.where(regions.spread(region, steps), gray + share * (_WHITE - background), gray)
    return np.where(region, _WHITE, whitened)
