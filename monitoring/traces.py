"""A small OTLP receiver, and a trace as a picture, without a tracing system.

    python -m monitoring.traces 4318 trace.png

waits for the trace of an inference on this port, draws it, and ends. Start the service with
``FASHION_OTLP_ENDPOINT=http://127.0.0.1:4318`` and ``FASHION_TRACE_RATIO=1``.
"""

from __future__ import annotations

import argparse
import collections
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

# Top to bottom.
STAGES = ("gateway", "queue", "decode", "inference", "encode")


class Receiver:
    """An HTTP server that takes spans by OTLP while its context lasts.

    Args:
        port: on the loopback address; 0 for a free one.

    Attributes:
        url: the endpoint.
        spans: what it has received.
        resources: the attributes of the senders of the spans, once for each message.
        arrived: notified when more spans have arrived.
        status: of its next answers; with any but 200 the spans are not kept.
    """

    def __init__(self, port: int = 0) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        self.arrived = threading.Condition()
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.status if self.path == "/v1/traces" else 404
                if status == 200:
                    receiver._add(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,))

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def traces(self) -> dict[bytes, list[Span]]:
        """The spans so far, by the id of their trace."""
        traces = collections.defaultdict(list)
        with self.arrived:
            for span in self.spans:
                traces[span.trace_id].append(span)
        return dict(traces)

    def _add(self, request: ExportTraceServiceRequest) -> None:
        with self.arrived:
            for resource in request.resource_spans:
                attributes = resource.resource.attributes
                self.resources.append({attribute.key: attribute.value.string_value for attribute in attributes})
                for scope in resource.scope_spans:
                    self.spans.extend(scope.spans)
            self.arrived.notify_all()


def complete(traces: dict[bytes, list[Span]]) -> list[Span] | None:
    """The first trace that has all ``STAGES``, in their order; ``None`` without one."""
    for spans in traces.values():
        by_name = {span.name: span for span in spans}
        if by_name.keys() >= set(STAGES):
            return [by_name[name] for name in STAGES]
    return None


def draw(spans: Sequence[Span], path: Path) -> None:
    """Draw one trace as bars over time.

    Args:
        spans: of the trace, from top to bottom.
        path: of the PNG file.
    """
    start = min(span.start_time_unix_nano for span in spans)
    figure, axes = plt.subplots(figsize=(9, 2.6), layout="constrained")
    for row, span in enumerate(spans):
        left = (span.start_time_unix_nano - start) / 1e6
        width = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
        axes.barh(row, width, left=left, height=0.6, color=f"C{row}")
        axes.text(left + width, row, f" {width:.3g} ms", va="center", fontsize=9)
    axes.set_yticks(range(len(spans)), [span.name for span in spans])
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_title(f"Trace {spans[0].trace_id.hex()}", fontsize=10, loc="left")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.traces", description="Receive and draw a trace.")
    parser.add_argument("port", type=int, help="port to listen on, 4318 by convention")
    parser.add_argument("path", type=Path, help="PNG file to write")
    arguments = parser.parse_args(argv)
    matplotlib.use("Agg")
    try:
        receiver = Receiver(arguments.port)
    except OSError as error:
        print(f"error: port {arguments.port} cannot be used: {error}; choose another port", file=sys.stderr)
        return 1
    with receiver, receiver.arrived:
        # The lock is held between the waits.
        while not (spans := complete(receiver.traces())):
            receiver.arrived.wait()
    draw(spans, arguments.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
