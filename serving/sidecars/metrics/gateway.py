"""What callers got from the gateway, and how fast: nginx writes a line for each answer, and this counts them.

    503 0.012        status, seconds from the request's first byte to the answer's last

nginx counts requests and connections by itself, but no statuses and no times. The lines are counted every few seconds
and the file is emptied, so that it stays small. A line that is written between the last look and the emptying is lost;
nginx writes once a second at most, and the moment is some microseconds long.
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

logger = logging.getLogger(__name__)

# Seconds between two looks. At 20,000 requests a second, 2 MB have come together by then.
_INTERVAL = 10.0
_PIECE = 1 << 20

# These are there from the start: a series that begins with its first value has no increase from it.
_STATUSES = ("200", "400", "401", "403", "404", "406", "413", "415", "422", "429", "500", "503", "504")
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class GatewayAnswers:
    """The lines of one gateway.

    Args:
        path: the file that nginx writes; it may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Counted every few seconds and when Prometheus asks, each in a thread.
        self._lock = threading.RLock()
        self._position = 0
        self._rest = b""
        self._emptied = True
        self._statuses = collections.Counter(dict.fromkeys(_STATUSES, 0))
        self._buckets = [0] * (len(_BOUNDS) + 1)
        self._seconds = 0.0

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            await asyncio.to_thread(self.count)
            await asyncio.sleep(_INTERVAL)

    def count(self) -> None:
        """Count what has come since the last time, and empty the file."""
        with self._lock:
            try:
                with self._path.open("rb") as file:
                    if file.seek(0, 2) < self._position:
                        # Somebody else has emptied it.
                        self._position = 0
                    file.seek(self._position)
                    while piece := file.read(_PIECE):
                        self._position += len(piece)
                        self._add(piece)
            except FileNotFoundError:
                return
            except OSError as error:
                logger.warning("%s cannot be read, so answers are not counted: %s", self._path, error)
                return
            self._empty()

    def metrics(self) -> list[Metric]:
        """All that has come until now."""
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

    def _add(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        # Most lines are like many others.
        for line, count in collections.Counter(lines).items():
            status, _, taken = line.partition(b" ")
            try:
                seconds = float(taken)
            except ValueError:
                logger.warning("%s has a line that is none of the gateway's: %r", self._path, line[:80])
                continue
            self._statuses[status.decode("ascii", "replace")] += count
            self._buckets[bisect.bisect_left(_BOUNDS, seconds)] += count
            self._seconds += seconds * count

    def _empty(self) -> None:
        if not self._position:
            return
        try:
            with self._path.open("rb+") as file:
                file.truncate(0)
            self._position = 0
        except OSError as error:
            if self._emptied:
                logger.warning("%s cannot be emptied and will grow: %s", self._path, error)
            self._emptied = False
