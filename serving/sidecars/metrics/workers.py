"""The workers' counts as metrics: reads and adds up the files of ``handlers/metrics/counter_file.py``.

Workers may write during the read. Each number is eight aligned bytes, so a read gets either the old or the new value.
The sum of a histogram may be slightly ahead of its buckets.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from handlers.metrics.counter_file import SUFFIX, Family

logger = logging.getLogger(__name__)

_Numbers = NDArray[np.float64]
_Metric = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
_KINDS: dict[str, type[_Metric]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "summed_gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def read(folder: Path) -> list[Metric]:
    """The metrics of all workers, added up for each model version; none without files.

    Args:
        folder: the folder of the workers' files.
    """
    versions: dict[tuple[str, str], tuple[list[Family], list[_Numbers]]] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            version, families, numbers = _parse(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            # Its worker may be writing the first line.
            logger.info("%s is skipped: %s", path, error)
            continue
        known, workers = versions.get(version, (families, []))
        # After a version was packed again, its files may have other families, whose numbers cannot be added.
        versions[version] = (families, [*workers, numbers] if known == families else [numbers])
    metrics: dict[str, _Metric] = {}
    for version, (families, workers) in versions.items():
        _add(metrics, version, families, np.array(workers))
    return list(metrics.values())


def clear(folder: Path) -> None:
    """Remove the counts of an earlier service's workers."""
    for path in folder.glob(f"*{SUFFIX}"):
        path.unlink(missing_ok=True)


def _parse(path: Path) -> tuple[tuple[str, str], list[Family], _Numbers]:
    # Not mmap, because a worker may truncate the file during the read, and reading past its end raises SIGBUS.
    with path.open("rb") as file:
        head, _, body = file.read().partition(b"\n")
        has_worker = _is_locked(file)
    header = json.loads(head)
    families = [Family(**family) for family in header["families"]]
    numbers = np.frombuffer(body).copy()
    if len(numbers) != sum(_sizes(families)):
        raise ValueError(f"expected {sum(_sizes(families))} numbers, got {len(numbers)}")
    for family, part in zip(families, np.split(numbers, np.cumsum(_sizes(families))[:-1]), strict=True):
        # The counts of a worker that has ended stay valid, but it has no requests any more.
        if family.kind == "summed_gauge" and not has_worker:
            part[:] = 0
    return (header["model"], header["version"]), families, numbers


def _is_locked(file: BinaryIO) -> bool:
    """Whether a worker counts in the file. A worker that looks for a file at this moment takes another one."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _sizes(families: Iterable[Family]) -> list[int]:
    return [math.prod(family.shape) for family in families]


def _add(metrics: dict[str, _Metric], version: tuple[str, str], families: list[Family], workers: _Numbers) -> None:
    columns = np.split(workers, np.cumsum(_sizes(families))[:-1], axis=1)
    for family, numbers in zip(families, columns, strict=True):
        labels = ("model", "version", *family.labels)
        metric = metrics.setdefault(family.name, _KINDS[family.kind](family.name, family.help, labels=labels))
        total = numbers.max(0) if family.kind == "gauge" else numbers.sum(0)
        for values, row in zip(family.series, total.reshape(family.shape).tolist(), strict=True):
            if isinstance(metric, HistogramMetricFamily):
                buckets = zip((*map(str, family.bounds), "+Inf"), itertools.accumulate(row[:-1]), strict=True)
                metric.add_metric((*version, *values), list(buckets), row[-1])
            # NaN marks an unknown gauge, for instance the accuracy of an archive without one.
            elif not math.isnan(row[0]):
                metric.add_metric((*version, *values), row[0])
