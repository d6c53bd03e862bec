"""The file that a worker counts in, mapped into memory so that another process can read the numbers at any time.

It starts with one line of JSON, padded with spaces to a multiple of eight bytes, that describes the float64 numbers
after it. A worker locks the first unlocked file of its model and version, and adds to the numbers in it. So a new
worker continues the counts of a dead one.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import math
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

SUFFIX = ".counts"


class Family(NamedTuple):
    """The definition of one metric, as in the first line of a file.

    Attributes:
        name, kind, help: the name, type and help text in Prometheus. A ``gauge`` has the same value in each worker; of
            a ``summed_gauge`` each worker has its part.
        labels: names of the labels besides model and version.
        series: the labels' values, one entry per series.
        bounds: upper bounds of a histogram's buckets, ascending; one more bucket holds all larger values.
    """

    name: str
    kind: Literal["counter", "gauge", "summed_gauge", "histogram"]
    help: str
    labels: tuple[str, ...]
    series: tuple[tuple[str, ...], ...]
    bounds: tuple[float, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows: one per series. Columns: its value, or a histogram's bucket counts and the sum of its observations."""
        return len(self.series), len(self.bounds) + 2 if self.kind == "histogram" else 1


def claim(folder: Path, model: str, version: str, families: Sequence[Family]) -> dict[str, NDArray[np.float64]]:
    """Lock the first unlocked file, until the returned arrays are deleted.

    Args:
        folder: of the files; created if missing.
        model, version: that the worker serves.
        families: the metrics to count.

    Returns:
        Arrays of each family's shape, by name, mapped to the file.

    Raises:
        OSError: the folder cannot be written to.
    """
    sizes = [math.prod(family.shape) for family in families]
    header = _header(model, version, families)
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        # The mapping duplicates the descriptor, and so keeps the lock.
        with (folder / f"{model}-{version}-{number}{SUFFIX}").open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            file.seek(0)
            if file.read(len(header)) != header or os.fstat(file.fileno()).st_size != len(header) + 8 * sum(sizes):
                # From another build of the same version, or truncated: start from zero.
                file.truncate(0)
                file.write(header + bytes(8 * sum(sizes)))
                file.flush()
            numbers = np.frombuffer(mmap.mmap(file.fileno(), 0), np.float64, offset=len(header))
            break
    parts = np.split(numbers, np.cumsum(sizes)[:-1])
    return {family.name: part.reshape(family.shape) for family, part in zip(families, parts, strict=True)}


def _header(model: str, version: str, families: Sequence[Family]) -> bytes:
    content = {"model": model, "version": version, "families": [family._asdict() for family in families]}
    text = json.dumps(content, separators=(",", ":")).encode()
    return text + b" " * (-(len(text) + 1) % 8) + b"\n"
