"""Load on a running service, with every answer checked.

    python -m bench.load --url http://127.0.0.1:8000 --archive model_store/fashion_mlp.mar --rate 4000 --seconds 30

Requests hold golden examples of the archives and each answer is compared with what the archive of the version that
it names records. A failed call is repeated as the Python client does it (client/README.md): after a connection that
broke, 429 and 503, up to three times. With ``--rate`` calls begin at fixed times, however slow the answers are, and a
call's latency counts from then on; without it each connection asks again as soon as it has its answer.

SIGTERM and SIGINT end the load early; what was measured is written all the same. Exit code 1 for a call that failed or
an answer that was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import dataclasses
import itertools
import json
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from fashion_client import errors, retrying

from bench import http1, request_forms
from bench.http1 import BrokenError, Connection, Reply, TooLateError
from serving import settings
from serving.errors import ArchiveError
from serving.store import archives

# Seconds of one entry of the time series.
INTERVAL = 0.25
# Seconds between two looks for requests that take too long.
_LOOK = 0.1
# Distinct problem bodies that are kept as examples.
_EXAMPLES = 5


class Asked(Protocol):
    """A request and what is right as its answer; ``bench.request_forms`` has them."""

    sent: bytes

    def is_right(self, reply: Reply) -> bool:
        """Whether an answer of status 200 is right."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """One load.

    Attributes:
        host, port: the service's address.
        asked: the requests, asked in turn.
        connections: kept open; also the most calls at once.
        seconds: how long calls begin.
        rate: calls a second; ``None`` for as many as the connections can make.
        retries: repetitions of a failed call at most.
        timeout: seconds that one try may take.
    """

    host: str
    port: int
    asked: Sequence[Asked]
    connections: int
    seconds: float
    rate: float | None = None
    retries: int = 3
    timeout: float = 30.0


class Record:
    """What came of the calls: totals, latencies, and both over time.

    Outcomes of calls are ``ok``, ``wrong`` (an answer that was not right), ``refused`` (429 or 503 to the last try),
    ``unconnected`` (no connection for the last try), ``broken`` (the connection ended during it), ``late`` (no answer
    in time) and ``status N``. Outcomes of tries are the same, but with every status by its number.
    """

    def __init__(self) -> None:
        self.started = time.time()
        self.begun = time.perf_counter()
        self.calls: collections.Counter[str] = collections.Counter()
        self.tries: collections.Counter[str] = collections.Counter()
        self.versions: collections.Counter[str] = collections.Counter()
        self.examples: list[str] = []
        self.without_retry_after = 0
        self.latencies: list[float] = []
        self.refusals: list[float] = []
        self.lags: list[float] = []
        self._series: list[tuple[collections.Counter[str], collections.Counter[str], list[float]]] = []

    def _now(self) -> tuple[collections.Counter[str], collections.Counter[str], list[float]]:
        place = int((time.perf_counter() - self.begun) / INTERVAL)
        while len(self._series) <= place:
            self._series.append((collections.Counter(), collections.Counter(), []))
        return self._series[place]

    def tried(self, outcome: str, reply: Reply | None, seconds: float) -> None:
        """One try has ended."""
        self.tries[outcome] += 1
        self._now()[1][outcome] += 1
        if reply is None:
            return
        if reply.status in (429, 503):
            self.refusals.append(seconds)
            if not reply.header(b"retry-after"):
                self.without_retry_after += 1
        if outcome != "ok" and len(self.examples) < _EXAMPLES:
            example = f"{reply.status} {reply.body[:300]!r}"
            if example not in self.examples:
                self.examples.append(example)

    def called(self, outcome: str, seconds: float, reply: Reply | None) -> None:
        """One call has ended, with all its tries."""
        self.calls[outcome] += 1
        calls, _, latencies = self._now()
        calls[outcome] += 1
        if outcome == "ok" and reply is not None:
            self.latencies.append(seconds)
            latencies.append(seconds)
            self.versions[reply.header(b"x-model-version").decode()] += 1

    def summary(self) -> dict[str, Any]:
        """Everything as JSON takes it; times in seconds, latencies in milliseconds."""
        ended = time.perf_counter() - self.begun
        return {
            "started": self.started,
            "seconds": round(ended, 3),
            "calls": dict(self.calls),
            "tries": dict(self.tries),
            "versions": dict(self.versions),
            "refusals_without_retry_after": self.without_retry_after,
            "latency_ms": _percentiles(self.latencies),
            "refusal_ms": _percentiles(self.refusals),
            "lag_ms": _percentiles(self.lags),
            "examples": self.examples,
            "interval": INTERVAL,
            "series": [
                {"calls": dict(calls), "tries": dict(tries), "latency_ms": _percentiles(latencies)}
                for calls, tries, latencies in self._series
            ],
        }


def _percentiles(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    ordered = sorted(seconds)
    last = len(ordered) - 1
    return {
        name: round(ordered[round(last * share)] * 1000, 3)
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
    }


class Load:
    """The calls of one plan.

    Args:
        plan: what is to be done.
        stop: set it to end early; calls under way are finished.
    """

    def __init__(self, plan: Plan, stop: asyncio.Event) -> None:
        self._plan = plan
        self._stop = stop
        self._open: set[Connection] = set()
        self._asked = itertools.cycle(plan.asked)
        self._slots = itertools.count()

    async def run(self) -> Record:
        """Make the calls."""
        self._record = Record()
        looking = asyncio.create_task(self._give_up_late_ones())
        try:
            await asyncio.gather(*(self._caller(place) for place in range(self._plan.connections)))
        finally:
            looking.cancel()
            for connection in self._open:
                connection.close()
        return self._record

    async def _give_up_late_ones(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            before = time.perf_counter() - self._plan.timeout
            for connection in list(self._open):
                if 0 < connection.since < before:
                    connection.give_up()

    async def _caller(self, place: int) -> None:
        plan, begun = self._plan, self._record.begun
        connection: Connection | None = None
        # Without a rate: the connections are not opened all at once, which no server's backlog would hold.
        await asyncio.sleep(place * 0.0002)
        while not self._stop.is_set():
            due = time.perf_counter()
            if plan.rate is not None:
                due = begun + next(self._slots) / plan.rate
                if due - begun > plan.seconds:
                    return
                wait = due - time.perf_counter()
                if wait > 0.0005:
                    await asyncio.sleep(wait)
                self._record.lags.append(max(0.0, time.perf_counter() - due))
            elif due - begun > plan.seconds:
                return
            connection = await self._call(connection, next(self._asked), due)

    async def _call(self, connection: Connection | None, asked: Asked, due: float) -> Connection | None:
        failed = 0
        while True:
            outcome, reply, connection, error = await self._try(connection, asked)
            failed += 1
            wait = retrying.wait_before_retry(error, failed, self._plan.retries) if error else None
            if wait is None:
                break
            await asyncio.sleep(wait)
        if outcome in ("status 429", "status 503"):
            outcome = "refused"
        self._record.called(outcome, time.perf_counter() - due, reply)
        return connection

    async def _try(
        self, connection: Connection | None, asked: Asked
    ) -> tuple[str, Reply | None, Connection | None, errors.FashionError | None]:
        """One try: its outcome, the answer, the connection for the next one, and what the Python client would raise."""
        sent = time.perf_counter()
        reply = None
        error: errors.FashionError | None = None
        try:
            if connection is None or not connection.alive:
                if connection:
                    self._open.discard(connection)
                    connection = None
                connection = await Connection.open(self._plan.host, self._plan.port)
                self._open.add(connection)
            reply = await connection.ask(asked.sent)
        except OSError:
            outcome, error = "unconnected", errors.ConnectError("no connection")
        except BrokenError:
            outcome, error = "broken", errors.ConnectError("broken")
        except TooLateError:
            outcome, error = "late", errors.AnswerTimeoutError("late")
        else:
            if reply.status == 200:
                outcome = "ok" if asked.is_right(reply) else "wrong"
            else:
                outcome = f"status {reply.status}"
                after = retrying.parse_retry_after(reply.header(b"retry-after").decode() or None)
                error = errors.problem_error(errors.Problem(reply.status, ""), after)
        self._record.tried(outcome, reply, time.perf_counter() - sent)
        return outcome, reply, connection, error


async def run(plan: Plan) -> dict[str, Any]:
    """Carry out a plan; SIGTERM and SIGINT end it early.

    Returns:
        ``Record.summary`` and what the plan was.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    used = time.process_time()
    record = await Load(plan, stop).run()
    return {
        "rate": plan.rate,
        "connections": plan.connections,
        "retries": plan.retries,
        "generator_seconds": round(time.process_time() - used, 2),
        **record.summary(),
    }


async def _learn(host: str, port: int, model: str, files: Sequence[Path]) -> list[Asked]:
    """Questions about pictures, whose right answers are what the service says now."""
    connection = await Connection.open(host, port)
    learned: list[Asked] = []
    for file in files:
        headers = {"Content-Type": f"image/{file.suffix[1:].replace('jpg', 'jpeg')}"}
        sent = http1.request("POST", f"/predictions/{model}", headers, file.read_bytes())
        reply = await connection.ask(sent)
        if reply.status != 200:
            raise ValueError(f"{file} is answered with {reply.status}: {reply.body[:200]!r}")
        learned.append(request_forms.LearnedQuestion(sent, reply))
    connection.close()
    return learned


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description="Load, with every answer checked.")
    parser.add_argument("--url", default=settings.read().gateway.url, help="the gateway (%(default)s)")
    parser.add_argument("--archive", type=Path, action="append", required=True, help="each version that may answer")
    parser.add_argument(
        "--form",
        action="append",
        choices=[*request_forms.FORMS, "all"],
        help="form of the requests (raw); may be repeated",
    )
    parser.add_argument(
        "--picture", type=Path, action="append", help="ask about this file instead; what is answered first is right"
    )
    parser.add_argument("--rate", type=float, help="calls a second (as many as can be)")
    parser.add_argument("--connections", type=int, default=64, help="most calls at once (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long (%(default)s)")
    parser.add_argument("--retries", type=int, default=3, help="repetitions of a failed call (%(default)s)")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for one try (%(default)s)")
    parser.add_argument("--output", type=Path, help="write everything there, as JSON")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    given = _parse(arguments)
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    address = urlsplit(given.url)
    if address.scheme != "http" or not address.hostname:
        print(f"error: --url is {given.url}; it must be http://HOST:PORT", file=sys.stderr)
        return 2
    host, port = address.hostname, address.port or 80

    async def go() -> dict[str, Any]:
        read = [archives.read(path) for path in given.archive]
        asked: Sequence[Asked]
        if given.picture:
            asked = await _learn(host, port, read[0].model, given.picture)
        else:
            forms = list(request_forms.FORMS) if given.form == ["all"] else given.form or ["raw"]
            asked = request_forms.make(read, forms)
        print("asking", flush=True)
        plan = Plan(host, port, asked, given.connections, given.seconds, given.rate, given.retries, given.timeout)
        return await run(plan)

    try:
        found = asyncio.run(go())
    except (ArchiveError, ValueError, OSError, BrokenError) as error:
        print(f"error: {error or 'the service ended the connection'}", file=sys.stderr)
        return 2
    if given.output:
        given.output.write_text(json.dumps(found) + "\n")
    told = {name: found[name] for name in ("seconds", "calls", "tries", "latency_ms", "lag_ms", "examples")}
    print(json.dumps(told))
    return 0 if set(found["calls"]) <= {"ok"} else 1


if __name__ == "__main__":
    sys.exit(main())
