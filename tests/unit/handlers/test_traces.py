"""Sampled requests in a worker: they keep their batch's pattern, and the handler writes a line for them."""

from __future__ import annotations

import json
import time
import types
from typing import Any

import numpy as np
import pytest

from handlers.metrics import traces
from handlers.metrics.recorder import Batch
from handlers.transport.pipeline import Pipeline
from handlers.transport.request_patterns import Bodies, Pattern, Processors, TracedFields
from tests.support.signatures import FASHION, VECTOR
from tests.support.worker_messages import Pieces, batch, request
from tests.unit.handlers.test_classifier import Served, _log_levels  # noqa: F401 (a fixture)

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"
HEADERS = {"Host": "h", "Content-Type": "application/octet-stream", "content-length": "784", "explain": "False"}


def message(*requests, headers=HEADERS):
    """A batch; each request is a name, its body, and its trace headers."""
    return batch(
        *(
            request(name, {**headers, **more}, [("body", "application/octet-stream", body)])
            for name, body, more in requests
        )
    )


def sampled(parent=PARENT, start="t=1.5"):
    return {"traceparent": parent, "X-Request-Start": start}


@pytest.fixture(autouse=True)
def bodies_are_not_decoded(monkeypatch):
    """As in the service."""
    monkeypatch.setenv("TS_DECODE_INPUT_REQUEST", "false")


def read(*streams) -> Any:
    """The last of a worker's messages."""
    pipeline = Pipeline()
    for stream in streams:
        connection: Any = Pieces(stream)
        _, content = pipeline.retrieve_msg(connection)
        pipeline.create_predict_response(None, {}, "", 500)
    return content


def test_a_sampled_request_keeps_its_batch_together():
    bodies = [bytes([number]) * 16 for number in range(4)]
    content = read(message(("z", b"", {})), message(*zip("abcd", bodies, ({}, {}, sampled(), {}), strict=True)))
    assert type(content.inputs) is Bodies
    assert content.inputs.values() == bodies
    assert type(content.processors) is Processors
    assert content.processors.traces() == [(PARENT, "t=1.5")]
    # Code that reads the headers of each request finds the trace too.
    properties = [processor.get_request_properties() for processor in content.processors]
    assert [each.get("traceparent") for each in properties] == [None, None, PARENT, None]
    assert properties[2].items() >= {**HEADERS, **sampled()}.items()


def test_a_batch_of_sampled_requests_only_has_a_pattern_too():
    content = read(message(("a", b"x", sampled()), ("b", b"yz", sampled(OTHER, ""))))
    assert content.inputs.values() == [b"x", b"yz"]
    assert content.processors.traces() == [(PARENT, "t=1.5"), (OTHER, "")]


def test_trace_headers_anywhere_among_the_others_are_left_out():
    first, *others = HEADERS.items()
    moved = dict([first, *sampled().items(), *others])
    stream = batch(
        request("a", HEADERS, [("body", "application/octet-stream", b"x")]),
        request("b", moved, [("body", "application/octet-stream", b"y")]),
        request("c", HEADERS, [("body", "application/octet-stream", b"z")]),
    )
    content = read(message(("z", b"", {})), stream)
    assert content.inputs.values() == [b"x", b"y", b"z"]
    assert content.processors.traces() == [(PARENT, "t=1.5")]


def test_sampled_requests_among_different_ones_keep_their_headers():
    stream = batch(
        request("a", {**HEADERS, "Accept": "application/json"}, [("body", "t", b"x")]),
        request("b", {**HEADERS, **sampled()}, [("body", "t", b"y")]),
        request("c", {**HEADERS, **sampled(OTHER)}, [("one", "t", b"y"), ("two", "t", b"z")]),
    )
    content = read(stream)
    assert [processor.get_request_property("traceparent") for processor in content.processors] == [None, PARENT, OTHER]
    assert content.inputs == [{"body": b"x"}, {"body": b"y"}, {"one": b"y", "two": b"z"}]


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A handler that writes traces, and a function that returns its lines."""
    monkeypatch.setenv(traces.VARIABLE, str(tmp_path / "traces.log"))
    return lambda signature: Served(signature, tmp_path / "model"), lambda: [
        json.loads(line) for line in (tmp_path / "traces.log").read_text().splitlines()
    ]


def test_a_line_describes_the_batch_and_its_sampled_requests(served):
    serve, lines = served
    began = time.time()
    worker = serve(VECTOR)
    headers = {"Content-Type": "application/octet-stream"}
    body = np.zeros(4, "<f4").tobytes()
    worker.batch((body, headers), (body, {**headers, **sampled()}), (body[:3], {**headers, **sampled(OTHER, "t=2")}))
    worker.batch((body, headers))
    (line,) = lines()
    assert list(line["seconds"]) == ["decode", "inference", "encode"]
    assert all(seconds > 0 for seconds in line.pop("seconds").values())
    assert began < line.pop("start") < time.time()
    assert line == {"model": "blobs", "version": "1.0", "size": 3, "requests": [[PARENT, "t=1.5"], [OTHER, "t=2"]]}


def test_the_fast_path_writes_a_line_too(served):
    serve, lines = served
    worker = serve(FASHION)
    properties = {"body": {"content-type": ""}, "Content-Type": "application/octet-stream"}
    pattern = Pattern([], [], "body", properties)
    fields = [[bytearray(784)], TracedFields([bytearray(784)], sampled())]
    processors = Processors(pattern, fields)
    answers = worker._handle(Bodies(pattern, fields), processors)
    assert processors.headers
    assert len(answers) == 2
    (line,) = lines()
    assert (line["model"], line["size"], line["requests"]) == ("fashion", 2, [[PARENT, "t=1.5"]])


def test_a_batch_of_refused_requests_has_the_time_of_the_handler(served):
    serve, lines = served
    serve(VECTOR).batch((b"{", {"Content-Type": "application/json", **sampled()}))
    (line,) = lines()
    assert list(line["seconds"]) == ["handler"]
    assert line["requests"] == [[PARENT, "t=1.5"]]


def test_without_a_file_the_handler_ignores_trace_headers(tmp_path, monkeypatch):
    monkeypatch.setenv(traces.VARIABLE, "")
    worker = Served(VECTOR, tmp_path / "model")
    body, headers = np.zeros(4, "<f4").tobytes(), {"Content-Type": "application/octet-stream"}
    assert worker.one(body, "application/octet-stream")[0] == 200
    assert worker.batch((body, {**headers, **sampled()}))[0][0] == 200
    assert not list(tmp_path.glob("traces*"))


def test_a_file_that_cannot_be_written_is_a_warning_only(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv(traces.VARIABLE, str(tmp_path / "missing" / "traces.log"))
    assert traces.open_writer(FASHION) is None
    assert traces.VARIABLE in caplog.text


def test_a_full_disk_costs_traces_only(monkeypatch, caplog):
    monkeypatch.setenv(traces.VARIABLE, "/dev/full")
    writer = traces.open_writer(FASHION)
    assert writer
    content = read(message(("a", b"x", sampled())))
    context: Any = types.SimpleNamespace(request_processor=content.processors)
    for _ in range(2):
        writer.write(context, Batch(), time.time())
    assert caplog.text.count("Traces of this worker are lost") == 1
