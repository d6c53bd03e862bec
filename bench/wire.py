"""Cost of a worker's messages: microseconds per request to read and write them, by TorchServe and by the handlers.

    python -m bench.wire           part of make bench; about ten seconds

A batch of raw images is sent through a pair of sockets, without TorchServe's frontend and without a network. ``read``
is from the socket to the handler's input, whose dicts ``handlers.transport.request_patterns`` makes on demand.
``write`` is from the handler's answers to the bytes for the socket. Figures are medians of the thread's processor
time. Rounds alternate between the two, so that both get the same conditions.
"""

from __future__ import annotations

import os
import socket
import statistics
import struct
import time
import uuid
from collections.abc import Callable
from itertools import starmap
from typing import Any

import numpy as np
import ts
from ts.context import Context
from ts.protocol import otf_message_handler as torchserve
from ts.service import Service

from bench import reporting
from handlers.transport import wire
from handlers.transport.pipeline import Pipeline

COUNTS = (1, 16, 64)
ROUNDS = 300
WARM_UP = 50

# The headers of a request by curl or wrk that the frontend passes on, and the two that it adds.
HEADERS = {
    "Host": "127.0.0.1:8080",
    "Content-Type": "application/octet-stream",
    "Content-Length": "784",
    "url_path": "",
    "explain": "False",
}
_END = struct.pack(">i", -1)
ANSWER = b'{"class":9,"label":"Ankle boot","probability":0.97,"probabilities":{%s}}' % b",".join(
    b'"label %d":0.012345678' % label for label in range(10)
)


def _fields(*values: str | bytes) -> bytes:
    encoded = [value if isinstance(value, bytes) else value.encode() for value in values]
    return b"".join(struct.pack(">i", len(value)) + value for value in encoded)


def message(count: int, same_headers: bool) -> bytes:
    """A batch of random images as TorchServe's ``ModelRequestEncoder`` writes it.

    Args:
        count: requests in the batch.
        same_headers: whether all requests have the same headers; otherwise each also has its own X-Request-Id.
    """
    parts = [b"I"]
    for row in np.random.default_rng(0).integers(0, 256, (count, 784), np.uint8):
        headers = HEADERS if same_headers else {**HEADERS, "X-Request-Id": uuid.uuid4().hex}
        parts += [_fields(str(uuid.uuid4())), *starmap(_fields, headers.items()), _END]
        parts += [_fields("body", "application/octet-stream", row.tobytes()), _END]
    return b"".join([*parts, _END])


def by_torchserve(connection: socket.socket) -> Any:
    _, read = torchserve.retrieve_msg(connection)
    return Service.retrieve_data_for_inference(read)


def by_wire(connection: socket.socket, reader: Pipeline) -> Any:
    return reader.retrieve_msg(connection)[1]


def answered(batch: Any) -> Context:
    """The context after a handler has answered a batch successfully."""
    context = Context("fashion_mlp", ".", {}, len(batch[0]), None, ts.__version__)
    context.request_processor = batch[0]
    for index in range(len(batch[0])):
        context.set_response_content_type(index, "application/json")
    return context


def measure(count: int, same_headers: bool) -> dict[str, float]:
    """Medians of ``read`` and ``write`` by TorchServe and by the handlers, in microseconds per request."""
    reader, taken = Pipeline(), dict[str, list[float]]()

    def timed(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        start = time.thread_time()
        result = call(*arguments)
        taken.setdefault(name, []).append((time.thread_time() - start) / count * 1e6)
        return result

    worker, frontend = socket.socketpair()
    with worker, frontend:
        # A whole batch must fit, because the same thread writes and reads.
        for end in (worker, frontend):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for _ in range(WARM_UP + ROUNDS):
            sent = message(count, same_headers)
            frontend.sendall(sent)
            batch = timed("read_torchserve", by_torchserve, worker)
            frontend.sendall(sent)
            timed("read_wire", by_wire, worker, reader)
            arguments = ([ANSWER] * count, batch[2], "Prediction success", 200, answered(batch))
            expected = timed("write_torchserve", torchserve.create_predict_response, *arguments)
            written = timed("write_wire", wire.create_predict_response, *arguments)
            if written != expected:
                raise RuntimeError("handlers.transport.wire and TorchServe write different bytes")
    return {name: statistics.median(values[WARM_UP:]) for name, values in taken.items()}


def table(results: list[dict[str, Any]]) -> str:
    rows = []
    for row in results:
        cells = [str(row["batch"]), row["headers"]]
        for stage in ("read", "write"):
            before, after = row[f"{stage}_torchserve"], row[f"{stage}_wire"]
            cells += [f"{before:.2f}", f"{after:.2f}", f"{before / after:.1f}"]
        rows.append(cells)
    stages = ["read: TorchServe, µs", "wire, µs", "ratio", "write: TorchServe, µs", "wire, µs", "ratio"]
    return reporting.table(["batch", "headers", *stages], rows)


def main() -> None:
    """Write ``bench/results/wire.json``."""
    # Like in the service, where the handler decodes bodies.
    os.environ["TS_DECODE_INPUT_REQUEST"] = "false"
    results: list[dict[str, Any]] = [
        {
            "batch": count,
            "headers": "the same" if same else "one differs",
            **{name: round(value, 3) for name, value in measure(count, same).items()},
        }
        for same in (True, False)
        for count in COUNTS
    ]
    print(table(results))
    print(f"→ {reporting.write('wire', {'torchserve': ts.__version__, 'rows': results})}")


if __name__ == "__main__":
    main()
