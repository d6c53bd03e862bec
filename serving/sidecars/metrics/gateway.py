"""Metrics of the gateway's answers: nginx writes a line for each answer, and ``GatewayAnswers`` counts the lines.

    503 0.012        status, seconds from the request's first byte to the answer's last

nginx itself counts requests and connections, but neither statuses nor times. Every few seconds the lines are counted
and removed.
"""

from __future__ import annotations

import asyncio
import bisect
import collections
import itertools
import logging
import threading
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from serving.sidecars.line_file import LineFile

logger = logging.getLogger(__name__)

# At 20,000 requests per second, the file reaches 2 MB in this time.
_COUNT_INTERVAL_S = 10.0

# Exported from the start with 0, because Prometheus computes no increase for the first value of a series.
_STATUSES = ("200", "400", "401", "403", "404", "406", "413", "415", "422", "429", "500", "503", "504")
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class GatewayAnswers:
    """The counts of one gateway's answers.

    Args:
        path: the file that nginx writes; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = LineFile(path)
        # run() and a scrape count in threads of their own.
        self._lock = threading.RLock()
        self._statuses = collections.Counter(dict.fromkeys(_STATUSES, 0))
        self._buckets = [0] * (len(_BOUNDS) + 1)
        self._seconds = 0.0

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            await asyncio.to_thread(self.count)
            await asyncio.sleep(_COUNT_INTERVAL_S)

    def count(self) -> None:
        """Count the lines since the last call, and remove them."""
        with self._lock:
            for lines in self._file.read():
                self._add(lines)

    def metrics(self) -> list[Metric]:
        """The metrics of all answers so far."""
        with self._lock:
            self.count()
            requests = CounterMetricFamily(
                "fashion_gateway_requests_total", "Answers of the gateway to inference requests.", labels=("status",)
            )
            for status, count in sorted(self._statuses.items()):
                requests.add_metric((status,), count)
            buckets = list(zip((*map(str, _BOUNDS), "+Inf"), itertools.accumulate(self._buckets), strict=True))
            text = "Seconds that callers waited for these answers."
            return [requests, HistogramMetricFamily("fashion_gateway_seconds", text, buckets, self._seconds)]

    def _add(self, lines: list[bytes]) -> None:
        # Many lines are equal.
        for line, count in collections.Counter(lines).items():
            status, _, duration = line.partition(b" ")
            try:
                seconds = float(duration)
            except ValueError:
                logger.warning("%s has an unexpected line: %r", self._path, line[:80])
                continue
            self._statuses[status.decode("ascii", "replace")] += count
            self._buckets[bisect.bisect_left(_BOUNDS, seconds)] += count
            self._seconds += seconds * count
