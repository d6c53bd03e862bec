"""What the workers have counted, as metrics: the files of ``handlers/counts.py``, read and added up.

Workers write while this reads; each number is eight aligned bytes, so it is either the old or the new one. The sum of
a histogram may be a moment ahead of its buckets.
"""

from __future__ import annotations

import json
import logging
import math
import mmap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from handlers.counts import SUFFIX
from serving import exposition
from serving.exposition import Family

logger = logging.getLogger(__name__)


def read(folder: Path) -> list[Family]:
    """All metrics of all workers, those of one model version added up; nothing while there are no files.

    Args:
        folder: where the workers write.
    """
    found: dict[str, Family] = {}
    totals: dict[tuple[str, str], tuple[dict[str, Any], list[float]]] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            header, numbers = _parse(path)
        except (OSError, ValueError, KeyError) as error:
            # Its worker may be at its first line.
            logger.info("%s is not read: %s", path, error)
            continue
        key = (header["model"], header["version"])
        kept = totals.get(key)
        if kept and kept[0] == header:
            totals[key] = (header, _sum(header, kept[1], numbers))
        else:
            totals[key] = (header, numbers)
    for header, numbers in totals.values():
        _add(found, header, numbers)
    return list(found.values())


def clear(folder: Path) -> None:
    """Remove what the workers of an earlier service counted."""
    for path in folder.glob(f"*{SUFFIX}"):
        path.unlink(missing_ok=True)


def _parse(path: Path) -> tuple[dict[str, Any], list[float]]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        start = mapped.find(b"\n") + 1
        header: dict[str, Any] = json.loads(mapped[:start])
        # A slice of a whole mapping is copied without tearing the eight bytes of a number.
        numbers = list(memoryview(mapped[start:]).cast("d"))
    if len(numbers) != sum(_size(family) for family in header["families"]):
        raise ValueError("the numbers are not as many as the first line says")
    return header, numbers


def _columns(family: dict[str, Any]) -> int:
    return len(family["bounds"]) + 2 if family["kind"] == "histogram" else 1


def _size(family: dict[str, Any]) -> int:
    return len(family["series"]) * _columns(family)


def _sum(header: dict[str, Any], one: Sequence[float], other: Sequence[float]) -> list[float]:
    summed = []
    start = 0
    for family in header["families"]:
        stop = start + _size(family)
        pairs = zip(one[start:stop], other[start:stop], strict=True)
        # A gauge is the same in every worker.
        summed += [max(pair) if family["kind"] == "gauge" else sum(pair) for pair in pairs]
        start = stop
    return summed


def _add(found: dict[str, Family], header: dict[str, Any], numbers: list[float]) -> None:
    place = 0
    for described in header["families"]:
        name = described["name"]
        family = found.setdefault(name, Family(name, described["kind"], described["help"]))
        for values in described["series"]:
            labels = {
                "model": header["model"],
                "version": header["version"],
                **dict(zip(described["labels"], values, strict=True)),
            }
            columns = numbers[place : place + _columns(described)]
            place += len(columns)
            if described["kind"] == "histogram":
                _add_histogram(family, labels, described["bounds"], columns)
            elif not math.isnan(columns[0]):
                # A gauge that nobody knows, such as the accuracy of an archive that does not tell.
                family.add(columns[0], **labels)


def _add_histogram(family: Family, labels: dict[str, str], bounds: Iterable[float], columns: Sequence[float]) -> None:
    count = 0.0
    for bound, within in zip([*bounds, float("inf")], columns[:-1], strict=True):
        count += within
        family.add(count, "_bucket", **labels, le=exposition.number(bound))
    family.add(columns[-1], "_sum", **labels)
    family.add(count, "_count", **labels)
