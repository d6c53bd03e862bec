"""Operations on masks, bool ``[height, width]``, and on pictures as arrays."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

# Passes of ``connected``. Each fills whole runs, so that few are needed; the bound keeps a maze from taking hundreds.
_MAX_PASSES = 16


def box(inside: Mask) -> tuple[int, int, int, int] | None:
    """The smallest box with all of ``inside``: left, top, right and bottom, the last two exclusive.

    Returns:
        ``None`` if there is nothing inside.
    """
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def spread(values: NDArray[Any], steps: int) -> NDArray[Any]:
    """The largest value within ``steps`` rows and columns of each place."""
    for _ in range(2):
        padded = np.pad(values, ((steps, steps), (0, 0)), "edge")
        shifted = [padded[start : start + len(values)] for start in range(2 * steps + 1)]
        values = functools.reduce(np.maximum, shifted).T
    return values


def edge(mask: Mask) -> Mask:
    """The part of ``mask`` in the first and last rows and columns."""
    part: Mask = mask.copy()
    part[1:-1, 1:-1] = False
    return part


def connected(mask: Mask, start: Mask) -> Mask:
    """The part of ``mask`` that is connected to ``start``, a part of it, through sides and not corners."""
    region, size = start, -1
    for _ in range(_MAX_PASSES):
        region = _filled(_filled(region, mask).T, mask.T).T
        before, size = size, int(region.sum())
        if size == before:
            break
    return region


def _filled(region: Mask, mask: Mask) -> Mask:
    """Extend ``region`` along the rows of ``mask``: each run of ``mask`` that it touches becomes part of it."""
    starts = mask.copy()
    starts[:, 1:] &= ~mask[:, :-1]
    runs = np.cumsum(starts).reshape(mask.shape)
    touched = np.zeros(int(runs[-1, -1]) + 1, bool)
    touched[runs[region]] = True
    filled: Mask = touched[runs] & mask
    return filled
