"""A hundred requests a second on a fleet, in which each answer is compared with that of the version that it names.

Callers retry like the Python client (``bench/load.py``). An engine's own tests give the addresses of its edge.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import scenes

RATE = 100.0
# More than the calls that wait at a time: a worker that hangs holds each for up to 20 s.
CONNECTIONS = 64
# A load ends with its context; this is for one that is left over.
LONGEST_S = 900.0


@dataclasses.dataclass(frozen=True)
class Callers:
    """Callers of a fleet.

    Attributes:
        urls: of the edges. A connection that one refuses is opened to the next.
        authority: file of the certificate authority, or ``None`` without TLS.
        key: an API key.
        archives: of all versions that may answer.
        folder: for results.
        place: the command by which a program runs where the edges can be reached.
    """

    urls: Sequence[str]
    authority: Path | None
    key: str
    archives: Sequence[Path]
    folder: Path
    place: Sequence[str] = ()

    def load(self, seconds: float = LONGEST_S, rate: float | None = RATE, retries: int = 3) -> scenes.Load:
        """Start a load; ``rate`` is in calls per second, ``None`` for as many as the connections can make."""
        others = [option for url in self.urls[1:] for option in ("--url", url)]
        options = [*others, "--key", self.key, "--connections", str(CONNECTIONS), "--retries", str(retries)]
        options += ["--authority", str(self.authority)] if self.authority else []
        options += ["--rate", str(rate)] if rate else []
        output = self.folder / f"load-{time.time_ns()}.json"
        return scenes.Load(self.urls[0], self.archives, seconds, output, *options, place=self.place)

    @contextmanager
    def unharmed(self, tolerated: Collection[str] = ()) -> Iterator[Result]:
        """Send the load during the context; at its end no call may have failed, and every answer must be right.

        Args:
            tolerated: outcomes with which one call of each connection may have failed.
        """
        load = self.load()
        result = Result()
        # So that the event happens under load, and its consequences too.
        load.settle(2)
        yield result
        load.settle(2)
        load.stop()
        result.summary = load.result()
        print(result)
        failed = scenes.failed(result.summary)
        assert failed.keys() <= set(tolerated), f"{result.summary['calls']}: {result.summary['examples']}"
        assert sum(failed.values()) <= CONNECTIONS
        assert result.summary["calls"]["ok"] > RATE


class Result:
    """What a load has measured, once its context has ended."""

    def __init__(self) -> None:
        self.summary: dict[str, Any] = {}

    @property
    def versions(self) -> dict[str, int]:
        """The number of right answers of each version."""
        return dict(self.summary["versions"])

    def __str__(self) -> str:
        latency = self.summary["latency_ms"]
        retried = sum(self.summary["tries"].values()) - sum(self.summary["calls"].values())
        return f"calls {self.summary['calls']}, {retried} retried, versions {self.versions}, latency in ms {latency}"
