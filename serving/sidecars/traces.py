"""Traces: makes spans of the lines that nginx and the workers write for sampled requests, and sends them by OTLP.

    gateway                      nginx: from the request's first byte to the answer's last
      ├─ queue                   from nginx or the gRPC bridge to the handler
      ├─ decode                  the stages of the handler, each for the whole batch
      ├─ inference ┄┄► gateway   links to the other sampled requests of the batch
      └─ encode

Only the front door imports OpenTelemetry, so neither nginx nor a worker spends time on spans or waits for a collector.
``serving/gateway/nginx/traces.conf.template`` and ``handlers/metrics/traces.py`` describe the lines. Spans that cannot
be sent are counted and lost.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from prometheus_client.core import CounterMetricFamily, Metric

from serving import NAME, VERSION
from serving.sidecars.line_file import LineFile

logger = logging.getLogger(__name__)

_INTERVAL_S = 1.0
# One request to the collector, as OpenTelemetry's own processor sends by default.
_EXPORTED_SPANS = 512
# Of one interval; more are lost. With them the front door uses about half of a processor.
_MAX_SPANS = 8192
# For one request to the collector and its repetitions. Lines wait in their file meanwhile.
_TIMEOUT_S = 5.0
# Requests of a batch that one span links to; OpenTelemetry's limit is 128.
_MAX_LINKS = 32
# nginx's times are in whole milliseconds. The span ends with the last one, so that it contains its parts.
_GATEWAY_RESOLUTION_S = 0.001

_SCOPE = InstrumentationScope(NAME, VERSION)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class _OnlyResource(Resource):
    """The one resource of this process. OpenTelemetry hashes it for each span, and writes JSON for that."""

    def __hash__(self) -> int:
        return 0


class Traces:
    """Makes and sends the spans of one service.

    Args:
        path: the file of lines.
        endpoint: URL of the collector, without ``/v1/traces``.
    """

    def __init__(self, path: Path, endpoint: str) -> None:
        self._file = LineFile(path)
        self._endpoint = endpoint
        self._exporter = OTLPSpanExporter(f"{endpoint}/v1/traces", timeout=_TIMEOUT_S)
        resource = Resource.create({"service.name": NAME, "service.version": VERSION})
        self._resource = _OnlyResource(resource.attributes, resource.schema_url)
        self._sent = self._lost = 0
        self._reachable = True

    async def run(self) -> None:
        """Send until cancelled."""
        # Its own messages would repeat every second while a collector is down.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        try:
            while True:
                try:
                    await asyncio.to_thread(self.send)
                except Exception:
                    logger.exception("Some traces could not be sent")
                await asyncio.sleep(_INTERVAL_S)
        finally:
            # Ends the wait between the repetitions of a request.
            self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def send(self) -> None:
        """Send the spans of all lines since the last call."""
        spans = itertools.chain.from_iterable(map(self._spans, itertools.chain.from_iterable(self._file.read())))
        room = _MAX_SPANS
        while exported := list(itertools.islice(spans, min(_EXPORTED_SPANS, room))):
            room -= len(exported)
            if self._exporter.export(exported) is not SpanExportResult.SUCCESS:
                self._lost += len(exported)
                self._note(False)
                break
            self._sent += len(exported)
            self._note(True)
        self._lost += sum(1 for _ in spans)

    def metrics(self) -> list[Metric]:
        """The counts of spans."""
        text = "Spans of traces, by whether the collector took them."
        counts = CounterMetricFamily("fashion_spans_total", text, labels=("outcome",))
        counts.add_metric(("sent",), self._sent)
        counts.add_metric(("lost",), self._lost)
        return [counts]

    def _note(self, reachable: bool) -> None:
        """Log each change of whether the collector takes spans."""
        if reachable != self._reachable:
            logger.warning("%s %s spans", self._endpoint, "takes" if reachable else "takes no")
        self._reachable = reachable

    def _spans(self, line: bytes) -> Iterator[ReadableSpan]:
        try:
            # A caller's query string may have any bytes.
            content = orjson.loads(line.decode(errors="replace"))
            yield from self._batch(content) if "requests" in content else self._gateway(content)
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("A line about traces is skipped: %s: %r", error, line[:80])

    def _gateway(self, line: Mapping[str, Any]) -> Iterator[ReadableSpan]:
        """The span of one request in nginx."""
        trace = line["trace"]
        parent = _context(trace, line["parent"], is_remote=True) if line["parent"] else None
        attributes = {
            "http.request.method": line["method"],
            "url.path": line["target"].partition("?")[0],
            "http.response.status_code": line["status"],
            **{f"fashion.{name}": line[name] for name in ("model", "version") if line[name]},
        }
        failed = not 0 < line["status"] < 500
        times = line["end"] - line["seconds"], line["end"] + _GATEWAY_RESOLUTION_S
        yield self._span("gateway", _context(trace, line["span"]), parent, times, attributes, failed=failed)

    def _batch(self, line: Mapping[str, Any]) -> Iterator[ReadableSpan]:
        """The spans of a batch in a worker: of each sampled request its own."""
        parents = [_context(*traceparent.split("-")[1:3]) for traceparent, _ in line["requests"]]
        attributes = {
            "fashion.model": line["model"],
            "fashion.version": line["version"],
            "fashion.batch.requests": line["size"],
        }
        ends = itertools.accumulate(line["seconds"].values(), initial=line["start"])
        stages = list(zip(line["seconds"], itertools.pairwise(ends), strict=True))
        for parent, (_, passed_on) in zip(parents, line["requests"], strict=True):
            spans = stages
            if passed_on:
                spans = [("queue", (float(passed_on.removeprefix("t=")), line["start"])), *stages]
            links = tuple(itertools.islice((Link(other) for other in parents if other is not parent), _MAX_LINKS))
            for name, times in spans:
                linked = links if name == "inference" else ()
                own = SpanContext(parent.trace_id, random.getrandbits(64) or 1, False, _SAMPLED)
                yield self._span(name, own, parent, times, attributes, linked)

    def _span(
        self,
        name: str,
        own: SpanContext,
        parent: SpanContext | None,
        times: tuple[float, float],
        attributes: Mapping[str, Any],
        links: Sequence[Link] = (),
        failed: bool = False,
    ) -> ReadableSpan:
        """A span that lasted from the first of ``times`` to the second, in seconds since 1970."""
        # Whole microseconds: a float holds no more of a time since 1970.
        start, end = (round(seconds * 1e6) * 1000 for seconds in times)
        # Not by a Tracer, because that measures spans of its own process as they happen.
        return ReadableSpan(
            name,
            own,
            parent,
            self._resource,
            attributes,
            links=links,
            kind=SpanKind.SERVER if name == "gateway" else SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR) if failed else Status(StatusCode.UNSET),
            start_time=start,
            # The clock may have been set back meanwhile.
            end_time=max(start, end),
            instrumentation_scope=_SCOPE,
        )


def _context(trace: str, span: str, is_remote: bool = False) -> SpanContext:
    return SpanContext(int(trace, 16), int(span, 16), is_remote, _SAMPLED)
