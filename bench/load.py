"""Put load on a running service, and check every answer.

    python -m bench.load --url http://127.0.0.1:8000 --archive model_store/fashion_mlp.mar --rate 4000 --seconds 30

Requests hold golden examples of the archives. Each answer must match those of the version that it names.
A call that fails with a broken connection, 429 or 503 is retried like in the Python client (client/README.md), up to
three times. With ``--rate``, calls start at fixed times however slow the answers are, and latency counts from those
times. Without it, each connection sends its next request as soon as it has an answer.

SIGTERM and SIGINT end the load early; the results so far are still written. The exit code is 1 if a call failed or an
answer was wrong.
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
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from fashion_client import errors, retrying

from bench import http1, request_forms
from bench.http1 import BrokenError, Connection, Reply, TooLateError
from serving import settings
from serving.errors import ArchiveError
from serving.store import archives

# Resolution of the time series.
INTERVAL_S = 0.25
# How often requests are checked for their timeout; fine enough for timeouts of seconds.
_TIMEOUT_POLL_S = 0.1
# The most distinct problem bodies to keep as examples.
_MAX_EXAMPLES = 5


class Question(Protocol):
    """A request with a check of its answer; ``bench.request_forms`` makes them."""

    request: bytes

    def is_right(self, reply: Reply) -> bool:
        """Whether an answer of status 200 is right."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """One load.

    Attributes:
        host, port: the service's address.
        others: further addresses. Connections begin at each in turn; where one refuses, they try the next.
        tls: the context of connections with TLS.
        questions: sent in turn.
        connections: connections kept open, and the most concurrent calls.
        seconds: how long calls are started.
        rate: calls per second; ``None`` for as many as the connections can make.
        retries: the most retries of a failed call.
        timeout: the limit for one try in seconds.
    """

    host: str
    port: int
    questions: Sequence[Question]
    connections: int
    seconds: float
    rate: float | None = None
    retries: int = 3
    timeout: float = 30.0
    others: Sequence[tuple[str, int]] = ()
    tls: ssl.SSLContext | None = None


class Record:
    """The results of the calls: totals, latencies, and both over time.

    The outcome of a call is that of its last try:

    ok, wrong      an answer of status 200 that is right, or wrong
    refused        429 or 503; for a try, ``status 429`` or ``status 503``
    unconnected    no connection
    broken         the connection ended before the answer was complete
    late           no answer within the timeout
    status N       any other status
    """

    def __init__(self) -> None:
        self.started = time.time()
        self.begin = time.perf_counter()
        self.calls: collections.Counter[str] = collections.Counter()
        self.tries: collections.Counter[str] = collections.Counter()
        self.versions: collections.Counter[str] = collections.Counter()
        self.examples: list[str] = []
        self.without_retry_after = 0
        self.latencies: list[float] = []
        self.refusals: list[float] = []
        self.lags: list[float] = []
        self._series: list[tuple[collections.Counter[str], collections.Counter[str], list[float]]] = []

    def _interval(self) -> tuple[collections.Counter[str], collections.Counter[str], list[float]]:
        index = int((time.perf_counter() - self.begin) / INTERVAL_S)
        while len(self._series) <= index:
            self._series.append((collections.Counter(), collections.Counter(), []))
        return self._series[index]

    def add_try(self, outcome: str, reply: Reply | None, seconds: float) -> None:
        """Count a try that has ended."""
        self.tries[outcome] += 1
        self._interval()[1][outcome] += 1
        if reply is None:
            return
        if reply.status in (429, 503):
            self.refusals.append(seconds)
            if not reply.header(b"retry-after"):
                self.without_retry_after += 1
        if outcome != "ok" and len(self.examples) < _MAX_EXAMPLES:
            example = f"{reply.status} {reply.body[:300]!r}"
            if example not in self.examples:
                self.examples.append(example)

    def add_call(self, outcome: str, seconds: float, reply: Reply | None) -> None:
        """Count a call that has ended after its last try."""
        self.calls[outcome] += 1
        calls, _, latencies = self._interval()
        calls[outcome] += 1
        if outcome == "ok" and reply is not None:
            self.latencies.append(seconds)
            latencies.append(seconds)
            self.versions[reply.header(b"x-model-version").decode()] += 1

    def summary(self) -> dict[str, Any]:
        """All results in a form for JSON; times in seconds, latencies in milliseconds."""
        return {
            "started": self.started,
            "seconds": round(time.perf_counter() - self.begin, 3),
            "calls": dict(self.calls),
            "tries": dict(self.tries),
            "versions": dict(self.versions),
            "refusals_without_retry_after": self.without_retry_after,
            "latency_ms": _percentiles(self.latencies),
            "refusal_ms": _percentiles(self.refusals),
            "lag_ms": _percentiles(self.lags),
            "examples": self.examples,
            "interval": INTERVAL_S,
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
        plan: the load.
        stop: an event that ends the load early; calls in progress are finished.
    """

    def __init__(self, plan: Plan, stop: asyncio.Event) -> None:
        self._plan = plan
        self._stop = stop
        self._open: set[Connection] = set()
        self._questions = itertools.cycle(plan.questions)
        self._slots = itertools.count()
        self._addresses = [(plan.host, plan.port), *plan.others]
        self._opened = itertools.count()

    async def run(self) -> Record:
        """Make the calls."""
        self._record = Record()
        timeouts = asyncio.create_task(self._enforce_timeouts())
        try:
            await asyncio.gather(*(self._caller(index) for index in range(self._plan.connections)))
        finally:
            timeouts.cancel()
            for connection in self._open:
                connection.close()
        return self._record

    async def _enforce_timeouts(self) -> None:
        while True:
            await asyncio.sleep(_TIMEOUT_POLL_S)
            oldest = time.perf_counter() - self._plan.timeout
            for connection in list(self._open):
                if 0 < connection.since < oldest:
                    connection.time_out()

    async def _caller(self, index: int) -> None:
        plan, begin = self._plan, self._record.begin
        connection: Connection | None = None
        # Open the connections one after another: all at once, they would overflow a server's backlog.
        await asyncio.sleep(index * 0.0002)
        while not self._stop.is_set():
            due = time.perf_counter()
            if plan.rate is not None:
                due = begin + next(self._slots) / plan.rate
                if due - begin > plan.seconds:
                    return
                wait = due - time.perf_counter()
                if wait > 0.0005:
                    await asyncio.sleep(wait)
                self._record.lags.append(max(0.0, time.perf_counter() - due))
            elif due - begin > plan.seconds:
                return
            connection = await self._call(connection, next(self._questions), due)

    async def _call(self, connection: Connection | None, question: Question, due: float) -> Connection | None:
        failed = 0
        while True:
            outcome, reply, connection, error = await self._try(connection, question)
            failed += 1
            wait = retrying.wait_before_retry(error, failed, self._plan.retries) if error else None
            if wait is None:
                break
            await asyncio.sleep(wait)
        if outcome in ("status 429", "status 503"):
            outcome = "refused"
        self._record.add_call(outcome, time.perf_counter() - due, reply)
        return connection

    async def _connect(self) -> Connection:
        first = next(self._opened) % len(self._addresses)
        *others, last = self._addresses[first + 1 :] + self._addresses[: first + 1]
        for address in others:
            with suppress(OSError):
                return await Connection.open(*address, self._plan.tls)
        return await Connection.open(*last, self._plan.tls)

    async def _try(
        self, connection: Connection | None, question: Question
    ) -> tuple[str, Reply | None, Connection | None, errors.FashionError | None]:
        """Make one try; return its outcome, the answer, the next try's connection and the Python client's error."""
        begin = time.perf_counter()
        reply = None
        error: errors.FashionError | None = None
        try:
            if connection is None or not connection.alive:
                if connection:
                    self._open.discard(connection)
                    connection = None
                connection = await self._connect()
                self._open.add(connection)
            reply = await connection.send(question.request)
        except OSError:
            outcome, error = "unconnected", errors.ConnectError("no connection")
        except BrokenError:
            outcome, error = "broken", errors.ConnectError("broken")
        except TooLateError:
            outcome, error = "late", errors.AnswerTimeoutError("late")
        else:
            if reply.status == 200:
                outcome = "ok" if question.is_right(reply) else "wrong"
            else:
                outcome = f"status {reply.status}"
                retry_after = retrying.parse_retry_after(reply.header(b"retry-after").decode() or None)
                error = errors.problem_error(errors.Problem(reply.status, ""), retry_after)
        self._record.add_try(outcome, reply, time.perf_counter() - begin)
        return outcome, reply, connection, error


async def run(plan: Plan) -> dict[str, Any]:
    """Run a plan; SIGTERM and SIGINT end it early.

    Returns:
        ``Record.summary`` and the plan's settings.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    cpu_begin = time.process_time()
    record = await Load(plan, stop).run()
    return {
        "rate": plan.rate,
        "connections": plan.connections,
        "retries": plan.retries,
        "generator_seconds": round(time.process_time() - cpu_begin, 2),
        **record.summary(),
    }


async def _learn(
    address: tuple[str, int], tls: ssl.SSLContext | None, model: str, files: Sequence[Path], headers: Mapping[str, str]
) -> list[Question]:
    """Questions about pictures; the service's present answers are taken as right."""
    connection = await Connection.open(*address, tls)
    questions: list[Question] = []
    for file in files:
        kind = {"Content-Type": f"image/{file.suffix[1:].replace('jpg', 'jpeg')}"}
        request = http1.request("POST", f"/predictions/{model}", {**kind, **headers}, file.read_bytes())
        reply = await connection.send(request)
        if reply.status != 200:
            raise ValueError(f"{file}: the service must answer with 200, got {reply.status}: {reply.body[:200]!r}")
        questions.append(request_forms.LearnedQuestion(request, reply))
    connection.close()
    return questions


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.load", description="Put load on a service, and check every answer."
    )
    parser.add_argument(
        "--url", action="append", help=f"the gateway; may be repeated (default: {settings.read().gateway.url})"
    )
    parser.add_argument("--authority", type=Path, help="the certificate authority of an https:// gateway")
    parser.add_argument("--key", help="the API key")
    parser.add_argument(
        "--archive", type=Path, action="append", required=True, help="a version that may answer; may be repeated"
    )
    parser.add_argument(
        "--form",
        action="append",
        choices=[*request_forms.FORMS, "all"],
        help="form of the requests, or all; may be repeated (default: raw)",
    )
    parser.add_argument(
        "--picture", type=Path, action="append", help="send this file instead; its first answer is taken as right"
    )
    parser.add_argument("--rate", type=float, help="calls per second (default: as many as possible)")
    parser.add_argument("--connections", type=int, default=64, help="most concurrent calls (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="duration (default: %(default)s)")
    parser.add_argument("--retries", type=int, default=3, help="most retries of a failed call (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for one try (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="write all results to this file as JSON")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = _parse(argv)
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    urls = arguments.url or [settings.read().gateway.url]
    scheme = "https" if arguments.authority else "http"
    parts = [urlsplit(url) for url in urls]
    if not all(each.scheme == scheme and each.hostname for each in parts):
        print(f"error: --url must be {scheme}://HOST:PORT, got {' '.join(urls)}", file=sys.stderr)
        return 2
    addresses = [(str(each.hostname), each.port or (443 if arguments.authority else 80)) for each in parts]
    headers = {"X-API-Key": arguments.key} if arguments.key else {}

    async def measure() -> dict[str, Any]:
        tls = ssl.create_default_context(cafile=arguments.authority) if arguments.authority else None
        versions = [archives.read(path) for path in arguments.archive]
        questions: Sequence[Question]
        if arguments.picture:
            questions = await _learn(addresses[0], tls, versions[0].model, arguments.picture, headers)
        else:
            chosen = arguments.form or ["raw"]
            forms = list(request_forms.FORMS) if "all" in chosen else chosen
            questions = request_forms.make(versions, forms, headers=headers)
        # tests/support/scenes.py waits for this line.
        print("load started", flush=True)
        return await run(
            Plan(
                *addresses[0],
                questions,
                arguments.connections,
                arguments.seconds,
                arguments.rate,
                arguments.retries,
                arguments.timeout,
                addresses[1:],
                tls,
            )
        )

    try:
        result = asyncio.run(measure())
    except (ArchiveError, ValueError, OSError, BrokenError) as error:
        print(f"error: {error or 'the service closed the connection'}", file=sys.stderr)
        return 2
    if arguments.output:
        arguments.output.write_text(json.dumps(result) + "\n")
    print(
        json.dumps({name: result[name] for name in ("seconds", "calls", "tries", "latency_ms", "lag_ms", "examples")})
    )
    return 0 if set(result["calls"]) <= {"ok"} else 1


if __name__ == "__main__":
    sys.exit(main())
