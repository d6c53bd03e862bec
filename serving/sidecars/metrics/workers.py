"""What the workers have counted, as metrics: the files of ``handlers/metrics/counter_file.py``, read and added up.

Workers write while this reads; each number is eight aligned bytes, so it is either the old or the new one. The sum of
a histogram may be a moment ahead of its buckets.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path

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
    "histogram": HistogramMetricFamily,
}


def read(folder: Path) -> list[Metric]:
    """All metrics of all workers, those of one model version added up; nothing while there are no files.

    Args:
        folder: where the workers write.
    """
    versions: dict[tuple[str, str], tuple[list[Family], list[_Numbers]]] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            version, families, numbers = _parse(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            # Its worker may be at its first line.
            logger.info("%s is not read: %s", path, error)
            continue
        known, workers = versions.get(version, (families, []))
        # A version that was packed anew may count something else; numbers of two kinds don't add up.
        versions[version] = (families, [*workers, numbers] if known == families else [numbers])
    found: dict[str, _Metric] = {}
    for version, (families, workers) in versions.items():
        _add(found, version, families, np.array(workers))
    return list(found.values())


def clear(folder: Path) -> None:
    """Remove what the workers of an earlier service counted."""
    for path in folder.glob(f"*{SUFFIX}"):
        path.unlink(missing_ok=True)


def _parse(path: Path) -> tuple[tuple[str, str], list[Family], _Numbers]:
    # Not mmap: a worker may truncate the file meanwhile, and a read past the end of its mapping raises SIGBUS.
    head, _, body = path.read_bytes().partition(b"\n")
    header = json.loads(head)
    families = [Family(**family) for family in header["families"]]
    numbers = np.frombuffer(body)
    if len(numbers) != sum(_sizes(families)):
        raise ValueError("the numbers are not as many as the first line says")
    return (header["model"], header["version"]), families, numbers


def _sizes(families: Iterable[Family]) -> list[int]:
    return [math.prod(family.shape) for family in families]


def _add(found: dict[str, _Metric], version: tuple[str, str], families: list[Family], workers: _Numbers) -> None:
    columns = np.split(workers, np.cumsum(_sizes(families))[:-1], axis=1)
    for family, numbers in zip(families, columns, strict=True):
        labels = ("model", "version", *family.labels)
        metric = found.setdefault(family.name, _KINDS[family.kind](family.name, family.help, labels=labels))
        # A gauge is the same in every worker.
        total = numbers.max(0) if family.kind == "gauge" else numbers.sum(0)
        for values, row in zip(family.series, total.reshape(family.shape).tolist(), strict=True):
            if isinstance(metric, HistogramMetricFamily):
                buckets = zip((*map(str, family.bounds), "+Inf"), itertools.accumulate(row[:-1]), strict=True)
                metric.add_metric((*version, *values), list(buckets), row[-1])
            elif not math.isnan(row[0]):
                # A gauge that nobody knows, such as the accuracy of an archive that does not tell.
                metric.add_metric((*version, *values), row[0])
