"""Traces of a real service, received by OTLP: whose trace it is, what is sampled, and what its spans hold."""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Iterator

import grpc
import pytest
import requests

from monitoring import traces
from monitoring.traces import Receiver
from serving.polling import wait_until
from serving.sidecars.grpc.proto import open_inference_pb2 as messages
from tests.support import metrics_page, packing
from tests.support.place import Place, make_place

TIMEOUT_S = 20
RESPONSE = re.compile(r"00-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>0[01])")
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def traced(tmp_path_factory, receiver) -> Iterator[Place]:
    """A service that traces the requests whose callers ask for it."""
    folder = tmp_path_factory.mktemp("traced")
    packing.pack(folder / "model_store")
    variables = {"FASHION_OTLP_ENDPOINT": receiver.url, "FASHION_TRACE_RATIO": "0"}
    place = make_place(folder, folder / "model_store", **variables)
    place.start()
    yield place
    place.end()


def parent(flags="01"):
    """A caller's trace id, span id, and header."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-{flags}"


def post(place, header=None, body=b"[1, 2, 3]", path="/predictions/tiny", **headers):
    trace = {"traceparent": header} if header else {}
    return requests.post(place.gateway + path, body, headers={**JSON, **trace, **headers}, timeout=TIMEOUT_S)


def answered(answer):
    """The trace id, span id and flags of an answer."""
    match = RESPONSE.fullmatch(answer.headers["traceresponse"])
    assert match, answer.headers
    return match.groups()


def spans_of(receiver, trace, *names):
    """The spans of a trace by name, as soon as these have arrived."""

    def arrived():
        return {span.name: span for span in receiver.traces().get(bytes.fromhex(trace), [])}

    assert wait_until(lambda: arrived().keys() >= set(names), TIMEOUT_S), (names, list(arrived()))
    return arrived()


def attributes(span):
    values = {each.key: each.value for each in span.attributes}
    return {key: value.string_value or value.int_value for key, value in values.items()}


def test_a_callers_trace_is_continued_through_every_stage(traced, receiver):
    trace, span, header = parent()
    answer = post(traced, header)
    assert answer.status_code == 200
    ours, gateway_id, flags = answered(answer)
    assert (ours, flags) == (trace, "01")
    spans = spans_of(receiver, trace, *traces.STAGES)
    assert spans.keys() == set(traces.STAGES)
    gateway = spans["gateway"]
    assert (gateway.span_id.hex(), gateway.parent_span_id.hex()) == (gateway_id, span)
    assert gateway.kind == gateway.SPAN_KIND_SERVER
    assert attributes(gateway) == {
        "http.request.method": "POST",
        "url.path": "/predictions/tiny",
        "http.response.status_code": 200,
        "fashion.model": "tiny",
        "fashion.version": "1.0",
    }
    times = [(span.start_time_unix_nano, span.end_time_unix_nano) for span in map(spans.get, traces.STAGES[1:])]
    assert all(start <= end for start, end in times)
    # Each stage begins where the one before it ended, and all are within the gateway's span.
    assert [start for start, _ in times[1:]] == [end for _, end in times[:-1]]
    assert gateway.start_time_unix_nano <= times[0][0]
    assert times[-1][1] <= gateway.end_time_unix_nano
    for name in traces.STAGES[1:]:
        assert spans[name].parent_span_id.hex() == gateway_id
        assert attributes(spans[name]) == {
            "fashion.model": "tiny",
            "fashion.version": "1.0",
            "fashion.batch.requests": 1,
        }
    assert receiver.resources[0]["service.name"] == "fashion-serve"


@pytest.mark.parametrize(
    "header",
    [
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more",
        "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
        "trace",
    ],
)
def test_a_malformed_header_starts_a_new_trace(traced, header):
    first, second = (answered(post(traced, header)) for _ in range(2))
    assert first[0] != second[0]
    assert "0af7651916cd43dd8448eb211c80319c" not in first[0]
    # The ratio is 0.
    assert first[2] == "00"


@pytest.mark.parametrize(
    ("start", "flags", "end", "sampled"),
    [("00", "03", "", "01"), ("00", "02", "", "00"), ("01", "01", "", "01"), ("cc", "ff", "-more", "01")],
)
def test_flags_and_later_versions_are_understood(traced, start, flags, end, sampled):
    trace, span, _ = parent()
    answer = answered(post(traced, f"{start}-{trace}-{span}-{flags}{end}"))
    assert answer[::2] == (trace, sampled)
    assert answer[1] != span


def test_a_request_that_is_not_sampled_leaves_no_spans(traced, receiver):
    trace, _, header = parent("00")
    assert answered(post(traced, header))[0] == trace
    # A request without a trace is sampled by the ratio, 0, and needs no answer about it.
    assert "traceresponse" not in post(traced).headers
    # Pages and lists are never sampled.
    listed, _, header = parent()
    requests.get(f"{traced.gateway}/v1/models", headers={"traceparent": header}, timeout=TIMEOUT_S)
    last, _, header = parent()
    post(traced, header)
    spans_of(receiver, last, *traces.STAGES)
    assert {trace, listed}.isdisjoint(each.hex() for each in receiver.traces())


def test_a_refused_request_has_its_status(traced, receiver):
    trace, _, header = parent()
    assert post(traced, header, b"[1]").status_code == 422
    spans = spans_of(receiver, trace, "gateway", "queue", "handler")
    assert attributes(spans["gateway"])["http.response.status_code"] == 422
    assert spans["gateway"].status.code == spans["gateway"].status.STATUS_CODE_UNSET
    missing, _, header = parent()
    assert post(traced, header, path="/predictions/missing").status_code == 404
    assert attributes(spans_of(receiver, missing, "gateway")["gateway"])["url.path"] == "/predictions/missing"


def test_a_chunked_request_is_traced_with_the_first_servers_span(traced, receiver):
    trace, _, header = parent()
    answer = requests.post(
        f"{traced.gateway}/predictions/tiny?top_k=1",
        iter([b"[1, ", b"2, 3]"]),
        headers={**JSON, "traceparent": header},
        timeout=TIMEOUT_S,
    )
    assert answer.status_code == 200
    spans = spans_of(receiver, trace, *traces.STAGES)
    assert len(receiver.traces()[bytes.fromhex(trace)]) == len(traces.STAGES)
    assert spans["decode"].parent_span_id.hex() == answered(answer)[1] == spans["gateway"].span_id.hex()
    assert attributes(spans["gateway"])["url.path"] == "/predictions/tiny"


def test_the_requests_of_a_batch_link_to_each_other(traced, receiver):
    def linked():
        parents = [parent() for _ in range(4)]
        together = threading.Barrier(len(parents))

        def send(header):
            together.wait()
            post(traced, header)

        threads = [threading.Thread(target=send, args=(header,)) for *_, header in parents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        each = [spans_of(receiver, trace, *traces.STAGES) for trace, *_ in parents]
        gateways = {spans["gateway"].span_id for spans in each}
        links = [(spans["gateway"].span_id, link.span_id) for spans in each for link in spans["inference"].links]
        assert {target for _, target in links} <= gateways
        assert not any(own == target for own, target in links)
        assert {(target, own) for own, target in links} == set(links)
        return bool(links)

    # Which requests share a batch is a matter of time.
    assert wait_until(linked, TIMEOUT_S)


def test_grpc_metadata_is_a_trace_too(traced, receiver):
    trace, span, header = parent()
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 3], "contents": {"fp32_contents": [1, 2, 3]}}
    request = messages.ModelInferRequest(model_name="tiny", inputs=[tensor])
    with grpc.insecure_channel(traced.grpc) as channel:
        method = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )
        _, call = method.with_call(request, metadata=(("traceparent", header),), timeout=TIMEOUT_S)
        _, unsampled = method.with_call(request, timeout=TIMEOUT_S)
    match = RESPONSE.fullmatch(str(dict(call.initial_metadata())["traceresponse"]))
    assert match
    assert match["trace"] == trace
    assert "traceresponse" not in dict(unsampled.initial_metadata())
    spans = spans_of(receiver, trace, *traces.STAGES)
    assert (spans["gateway"].span_id.hex(), spans["gateway"].parent_span_id.hex()) == (match["span"], span)
    assert attributes(spans["gateway"])["url.path"] == "/inference.GRPCInferenceService/ModelInfer"
    for name in traces.STAGES[1:]:
        assert spans[name].parent_span_id == spans["gateway"].span_id


def counts(place):
    page = metrics_page.samples(requests.get(f"{place.settings.frontdoor.url}/metrics", timeout=TIMEOUT_S).text)
    return {key[1]: value for key, value in page.items() if key[0] == "fashion_spans_total"}


def test_a_collector_that_takes_nothing_costs_a_counted_loss(traced, receiver):
    before = counts(traced)
    receiver.status = 400
    try:
        lost, _, header = parent()
        assert post(traced, header).status_code == 200
        # Both lines of one request, of nginx and of the worker, may be sent apart.
        assert wait_until(lambda: counts(traced)["lost"] == before["lost"] + len(traces.STAGES), TIMEOUT_S)
    finally:
        receiver.status = 200
    trace, _, header = parent()
    assert post(traced, header).status_code == 200
    spans_of(receiver, trace, *traces.STAGES)
    assert wait_until(lambda: counts(traced)["sent"] >= before["sent"] + len(traces.STAGES), TIMEOUT_S)
    assert bytes.fromhex(lost) not in receiver.traces()
    assert wait_until(lambda: traced.settings.traces.stat().st_size == 0, TIMEOUT_S)
    log = (traced.settings.logs / "frontdoor.log").read_text()
    assert f"{receiver.url} takes no spans" in log
    assert "Traceback" not in log


def test_the_ratio_samples_requests_without_a_trace(place, receiver):
    packing.pack(place.settings.model_store)
    place.environment.update({"FASHION_OTLP_ENDPOINT": receiver.url, "FASHION_TRACE_RATIO": "1"})
    place.start()
    answer = post(place)
    trace, _, flags = answered(answer)
    assert flags == "01"
    spans = spans_of(receiver, trace, *traces.STAGES)
    assert spans["gateway"].parent_span_id == b""
    # The caller's decision comes first.
    _, _, header = parent("00")
    assert answered(post(place, header))[2] == "00"


def test_without_a_collector_there_are_no_traces(tiny_service):
    _, _, header = parent()
    answer = post(tiny_service, header)
    assert answer.status_code == 200
    assert "traceresponse" not in answer.headers
    assert not tiny_service.settings.traces.exists()
    assert counts(tiny_service) == {}
    config = tiny_service.settings.run / "gateway"
    assert "traces.conf" not in (config / "main.conf").read_text()
    assert json.loads(answer.text)["label"]
