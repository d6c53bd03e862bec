"""Lines of nginx and of workers become spans, and a collector that fails costs a counted loss."""

from __future__ import annotations

import json
import socket
import time

import pytest

from monitoring.traces import Receiver
from serving.sidecars import traces
from serving.sidecars.traces import Traces

TRACE, OTHER = "0af7651916cd43dd8448eb211c80319c", "1af7651916cd43dd8448eb211c80319c"
SPAN, PARENT = "b7ad6b7169203331", "c7ad6b7169203331"
GATEWAY = {
    **{"trace": TRACE, "span": SPAN, "parent": PARENT, "end": 1700000002.125, "seconds": 0.125},
    **{"method": "POST", "target": "/predictions/m?top_k=3", "status": 200, "model": "m", "version": "1.0"},
}
WORKER = {
    **{"model": "m", "version": "1.0", "size": 9, "start": 1700000002.01},
    "seconds": {"decode": 0.001, "inference": 0.002, "encode": 0.003},
    "requests": [[f"00-{TRACE}-{SPAN}-01", "t=1700000002.005"]],
}


@pytest.fixture(scope="module")
def shared_receiver():
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def receiver(shared_receiver):
    shared_receiver.spans.clear()
    shared_receiver.status = 200
    return shared_receiver


@pytest.fixture
def path(tmp_path):
    return tmp_path / "traces.log"


def write(path, *lines):
    with path.open("a") as file:
        file.writelines(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)


def outcomes(sender):
    (family,) = sender.metrics()
    return {sample.labels["outcome"]: sample.value for sample in family.samples}


def times(span):
    return span.start_time_unix_nano - 1700000002 * 10**9, span.end_time_unix_nano - 1700000002 * 10**9


def test_the_times_of_spans_are_those_of_the_lines(path, receiver):
    write(path, GATEWAY, WORKER)
    Traces(path, receiver.url).send()
    assert {span.name: times(span) for span in receiver.spans} == {
        "gateway": (0, 126_000_000),
        "queue": (5_000_000, 10_000_000),
        "decode": (10_000_000, 11_000_000),
        "inference": (11_000_000, 13_000_000),
        "encode": (13_000_000, 16_000_000),
    }


@pytest.mark.parametrize(("status", "failed"), [(200, False), (422, False), (499, False), (500, True), (0, True)])
def test_an_error_of_the_service_is_the_status_of_its_span(path, receiver, status, failed):
    write(path, {**GATEWAY, "status": status})
    Traces(path, receiver.url).send()
    (span,) = receiver.spans
    assert (span.status.code == span.status.STATUS_CODE_ERROR) == failed


def test_a_request_without_a_start_or_parent_has_no_such_span(path, receiver):
    write(path, {**GATEWAY, "parent": ""}, {**WORKER, "requests": [[f"00-{TRACE}-{SPAN}-01", ""]]})
    Traces(path, receiver.url).send()
    spans = {span.name: span for span in receiver.spans}
    assert spans.keys() == {"gateway", "decode", "inference", "encode"}
    assert spans["gateway"].parent_span_id == b""


def test_each_request_of_a_batch_has_its_own_spans_and_links_to_the_others(path, receiver):
    write(path, {**WORKER, "requests": [[f"00-{trace}-{SPAN}-01", "t=1"] for trace in (TRACE, OTHER)]})
    Traces(path, receiver.url).send()
    links = {
        span.trace_id.hex(): [link.trace_id.hex() for link in span.links]
        for span in receiver.spans
        if span.name == "inference"
    }
    assert links == {TRACE: [OTHER], OTHER: [TRACE]}
    assert not any(span.links for span in receiver.spans if span.name != "inference")
    assert len({span.span_id for span in receiver.spans}) == 8


def test_a_large_batch_has_a_limited_number_of_links(path, receiver):
    write(path, {**WORKER, "requests": [[f"00-{number:032x}-{SPAN}-01", "t=1"] for number in range(1, 101)]})
    Traces(path, receiver.url).send()
    assert {len(span.links) for span in receiver.spans if span.name == "inference"} == {32}


def test_lines_that_are_not_understood_are_skipped(path, receiver, caplog):
    write(path, "not json\n", {"trace": 1}, {**WORKER, "requests": [["00-x-y-01", "t=1"]]}, GATEWAY)
    sender = Traces(path, receiver.url)
    sender.send()
    assert [span.name for span in receiver.spans] == ["gateway"]
    assert caplog.text.count("is skipped") == 3
    assert outcomes(sender) == {"sent": 1, "lost": 0}


def test_a_query_of_any_bytes_is_no_reason_to_lose_a_span(path, receiver):
    path.write_bytes(json.dumps(GATEWAY).encode().replace(b"top_k", b"\xff") + b"\n")
    Traces(path, receiver.url).send()
    assert [span.name for span in receiver.spans] == ["gateway"]


def test_a_collector_that_is_down_costs_counted_spans(path, caplog, monkeypatch):
    monkeypatch.setattr(traces, "_TIMEOUT_S", 0.5)
    # Nothing listens on a port that is bound only.
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        sender = Traces(path, f"http://127.0.0.1:{bound.getsockname()[1]}")
        for _ in range(2):
            write(path, GATEWAY, WORKER)
            sender.send()
    assert outcomes(sender) == {"sent": 0, "lost": 10}
    assert path.stat().st_size == 0
    assert caplog.text.count("takes no spans") == 1


def test_a_collector_that_refuses_is_tried_once_for_each_interval(path, receiver):
    receiver.status = 400
    write(path, *([WORKER] * 300))
    sender = Traces(path, receiver.url)
    sender.send()
    assert outcomes(sender) == {"sent": 0, "lost": 1200}
    receiver.status = 200
    write(path, GATEWAY)
    sender.send()
    assert outcomes(sender) == {"sent": 1, "lost": 1200}


def test_more_spans_than_an_interval_may_send_are_lost(path, receiver, monkeypatch):
    monkeypatch.setattr(traces, "_MAX_SPANS", 600)
    write(path, *([GATEWAY] * 700))
    sender = Traces(path, receiver.url)
    sender.send()
    assert len(receiver.spans) == 600
    assert outcomes(sender) == {"sent": 600, "lost": 100}


def test_a_clock_that_is_set_back_makes_no_negative_span(path, receiver):
    write(path, {**WORKER, "requests": [[f"00-{TRACE}-{SPAN}-01", f"t={time.time() + 3600}"]]})
    Traces(path, receiver.url).send()
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in receiver.spans)
