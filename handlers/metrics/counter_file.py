"""The file in which a worker counts, so that another process can read the numbers while it does.

It begins with one line of JSON, padded with spaces to a multiple of eight bytes, which says what the float64 numbers
after it are. A worker locks the first file of its model and version that nobody holds and counts on from the numbers
in it: so a worker's death, whatever its cause, loses no counts and leaves no file behind that nobody goes on with.
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
    """What one metric is, as the first line of a file has it.

    Attributes:
        name, kind, help: as Prometheus names them.
        labels: names of the labels, beside model and version.
        series: the labels' values, one entry for each series.
        bounds: upper bounds of a histogram's buckets, rising; one more bucket takes the rest.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]
    series: tuple[tuple[str, ...], ...]
    bounds: tuple[float, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows: one for each series. Columns: its value, or the buckets' counts and the sum of what was observed."""
        return len(self.series), len(self.bounds) + 2 if self.kind == "histogram" else 1


def claim(folder: Path, model: str, version: str, families: Sequence[Family]) -> dict[str, NDArray[np.float64]]:
    """Lock the first file that no worker holds, for as long as its numbers are in use.

    Args:
        folder: of the files; made when needed.
        model, version: what the worker serves.
        families: what it counts.

    Returns:
        Arrays of each family's shape, by its name; what is written to them is in the file.

    Raises:
        OSError: the folder cannot be written to.
    """
    sizes = [math.prod(family.shape) for family in families]
    header = _header(model, version, families)
    folder.mkdir(parents=True, exist_ok=True)
    for place in itertools.count():
        # The mapping keeps a descriptor of its own, and the lock with it.
        with (folder / f"{model}-{version}-{place}{SUFFIX}").open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            file.seek(0)
            if file.read(len(header)) != header or os.fstat(file.fileno()).st_size != len(header) + 8 * sum(sizes):
                # Of an archive that was packed anew under the same version, or cut short.
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
