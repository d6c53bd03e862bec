"""The reader and the writer of handlers.transport.wire, compared with TorchServe's own message by message."""

import itertools
import os
import socket
import threading
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ts.context import Context, RequestProcessor
from ts.protocol import otf_message_handler as upstream
from ts.service import Service

from handlers.inputs import requests
from handlers.transport import request_patterns, wire
from handlers.transport.pipeline import Pipeline
from tests.support.worker_messages import END, Pieces, batch, field, load, request


def read_by_torchserve(connection):
    command, message = upstream.retrieve_msg(connection)
    return command, Service.retrieve_data_for_inference(message) if command == b"I" else message


def read_by_pipeline(connection, pipeline=None):
    return (pipeline or Pipeline()).retrieve_msg(connection)


def comparable(message):
    """Commands and contents with their types, in values that can be compared; processors cannot."""
    command, content = message
    if command == b"I":
        processors, inputs, ids = content
        typed = [{name: (type(value), value) for name, value in values.items()} for values in inputs]
        content = [processor.get_request_properties() for processor in processors], typed, ids
    return command, content


def until_the_end(read, connection):
    """All messages of a connection, and then the exit status."""
    messages = []
    while True:
        try:
            messages.append(comparable(read(connection)))
        except SystemExit as exit_:
            return [*messages, exit_.code]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
TYPES = st.sampled_from(["", "application/json", "application/octet-stream", "text/plain", "text", "image/png"])
VALUES = st.binary(max_size=12) | st.sampled_from([b"[1, 2]", b"{", b"Infinity", "ž".encode(), b"\xff", b"[" * 100_000])
REQUESTS = st.builds(
    request,
    st.text("0123456789abcdef-", max_size=36),
    st.dictionaries(TEXTS, TEXTS, max_size=4) | st.just({"Host": "a", "url_path": "", "explain": "False"}),
    st.lists(st.tuples(TEXTS, TYPES, VALUES), max_size=3, unique_by=lambda parameter: parameter[0]),
)
LOADS = st.builds(
    load, TEXTS, TEXTS, st.integers(1, 2**31 - 1), TEXTS, st.integers(-1, 2**31 - 1), TEXTS, st.booleans()
)
MESSAGES = st.lists(REQUESTS, max_size=4).map(lambda requests: batch(*requests)) | LOADS

STREAM = (
    batch(
        request("a", {"Host": "h", "x-ž": ""}, [("body", "application/octet-stream", bytes(range(40)))]),
        request(
            "b", {"Host": "h", "x-ž": ""}, [("ü", "", b""), ("b", "text/plain", b"t"), ("c", "application/json", b"3")]
        ),
        request("c", {}, []),
    )
    + load("modél", "/ü", gpu=3, envelope="json", limited=False)
    + batch()
    + batch(request("", {"Host": "other"}, [("body", "application/json", b"[1]")]))
)


def request_of(client, name, value, own):
    """A request of one of two clients, with this body and a request id or length of its own."""
    headers = (
        {"Host": "h", "Content-Length": str(len(value)), "X-Request-Id": own, "explain": "False"},
        {"host": "h", "x-request-id": own, "content-LENGTH": own, "x-ž": "ü"},
    )[client % 2]
    parameters = [("body", "application/octet-stream", value)]
    return request(name, headers, parameters if client < 2 else [*parameters, ("more", "", own.encode())])


# Most have the same length, as ids and pixels do.
NAMES = st.text("0123456789abcdef-", min_size=36, max_size=36) | st.text("0123456789abcdef-", max_size=36)
OWN = st.just("4") | st.text("0123456789abcdefž", max_size=6)
BODIES = st.binary(min_size=4, max_size=4) | st.binary(max_size=6) | st.sampled_from([END, END + END, b"\0\0\0\1"])
# Most requests of a batch are from one client.
BATCHES = st.integers(0, 3).flatmap(
    lambda client: st.lists(
        st.builds(request_of, st.sampled_from([client] * 6 + [0, 1, 2]), NAMES, BODIES, OWN), min_size=1, max_size=9
    ).map(lambda requests: batch(*requests))
)


@settings(deadline=None)
@given(messages=st.lists(BATCHES, max_size=5), ends=st.lists(st.integers(1, 400)), missing=st.integers(0, 30))
def test_requests_of_one_pattern_are_read_as_torchserve_reads_them(messages, ends, missing):
    stream = b"".join(messages)
    stream = stream[: len(stream) - missing]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TS_DECODE_INPUT_REQUEST", "false")
        expected = until_the_end(read_by_torchserve, Pieces(stream))
        whole = itertools.accumulate(map(len, messages))
        assert until_the_end(Pipeline().retrieve_msg, Pieces(stream, [*ends, *whole])) == expected


def test_a_batch_of_one_pattern_becomes_lazy_sequences(monkeypatch):
    monkeypatch.setenv("TS_DECODE_INPUT_REQUEST", "false")
    messages = [
        batch(*(request_of(0, f"{place}", b"x" * place, "id" * place) for place in range(size))) for size in (1, 4)
    ]
    connection, reader = Pieces(b"".join(messages), [len(messages[0])]), Pipeline()
    first, second = (read_by_pipeline(connection, reader)[1] for _ in messages)
    assert type(first.inputs) is list
    assert type(second.inputs) is request_patterns.Bodies
    assert type(second.processors) is request_patterns.Processors
    # Changes are kept, as in a list.
    second.inputs[1]["body"] += b"more"
    second.processors[1].get_request_properties()["Host"] = "changed"
    assert [values["body"] for values in second.inputs] == [b"", b"xmore", b"xx", b"xxx"]
    hosts = [processor.get_request_properties()["Host"] for processor in second.processors]
    assert hosts == ["h", "changed", "h", "h"]


OTHERS = {
    "another client": request_of(1, "o", b"body", "4"),
    "another value": request_of(0, "o", b"body", "4").replace(b"False", b"Maybe"),
    "another parameter": request_of(0, "o", b"body", "4").replace(b"octet-stream", b"octet-strain"),
    "more parameters": request_of(2, "o", b"body", "4"),
    "a longer body": request_of(0, "o", b"bodies", "4"),
    "a longer id": request_of(0, "other", b"body", "4"),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_different_request_amid_one_pattern_is_read_as_torchserve_reads_it(monkeypatch, other):
    monkeypatch.setenv("TS_DECODE_INPUT_REQUEST", "false")
    requests = [request_of(0, name, b"body", "4") for name in "abcdef"]
    stream = batch(*requests[:4], other, *requests[4:])
    assert until_the_end(Pipeline().retrieve_msg, Pieces(stream)) == until_the_end(read_by_torchserve, Pieces(stream))


def test_unanswered_requests_are_skipped_at_any_position(monkeypatch):
    monkeypatch.setenv("TS_DECODE_INPUT_REQUEST", "false")
    sent = {name: request_of(0, name, b"body", "own") for name in "abcdef"}
    reader = wire.Reader()
    reader.unanswered = {name: len(sent[name]) for name in "bdf"}

    def read_ids(connection):
        message = reader.read(connection)
        assert message
        return [request.id for request in message[1]]

    for _ in range(2):
        assert read_ids(Pieces(batch(*sent.values()))) == ["a", "c", "e"]


# No deadline, because the machine may be busy.
@settings(deadline=None)
@pytest.mark.parametrize("setting", [None, "true", "false", "True"])
@given(messages=st.lists(MESSAGES, max_size=3), ends=st.lists(st.integers(1, 400)), missing=st.integers(0, 30))
def test_any_stream_is_read_as_torchserve_reads_it(setting, messages, ends, missing):
    stream = b"".join(messages)
    stream = stream[: len(stream) - missing]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TS_DECODE_INPUT_REQUEST", raising=False)
        if setting is not None:
            patch.setenv("TS_DECODE_INPUT_REQUEST", setting)
        expected = until_the_end(read_by_torchserve, Pieces(stream))
        assert until_the_end(Pipeline().retrieve_msg, Pieces(stream, ends)) == expected


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
@pytest.mark.parametrize(
    "value", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a": [1, Infinity]}'], ids=lambda value: value[:9]
)
def test_a_body_is_decoded_or_arrives_as_its_bytes(monkeypatch, kind, value):
    monkeypatch.delenv("TS_DECODE_INPUT_REQUEST", raising=False)
    stream = batch(request("a", {}, [("body", kind, value)]))
    assert comparable(read_by_pipeline(Pieces(stream))) == comparable(read_by_torchserve(Pieces(stream)))


def test_a_stream_may_arrive_in_two_pieces_cut_anywhere():
    expected = until_the_end(read_by_torchserve, Pieces(STREAM))
    assert len(expected) == 5
    for end in range(len(STREAM)):
        assert until_the_end(Pipeline().retrieve_msg, Pieces(STREAM, [end])) == expected, end


def test_a_stream_may_arrive_byte_by_byte():
    expected = until_the_end(read_by_torchserve, Pieces(STREAM))
    assert until_the_end(Pipeline().retrieve_msg, Pieces(STREAM, range(len(STREAM)))) == expected


def test_a_closed_connection_ends_the_worker_without_an_error():
    for length in range(len(STREAM)):
        messages = until_the_end(Pipeline().retrieve_msg, Pieces(STREAM[:length]))
        assert messages == until_the_end(read_by_torchserve, Pieces(STREAM[:length])), length
        assert messages[-1] == 0


@pytest.mark.parametrize("stream", [b"X", b"X" + batch(), b"\x00"], ids=repr)
def test_an_unknown_command_raises_the_same_error_as_in_torchserve(stream):
    with pytest.raises(ValueError, match="Invalid command") as expected:
        read_by_torchserve(Pieces(stream))
    with pytest.raises(ValueError, match="Invalid command") as raised:
        read_by_pipeline(Pieces(stream))
    assert str(raised.value) == str(expected.value)


def test_text_that_is_not_utf8_raises_the_same_error_as_in_torchserve():
    for stream in (batch(request("a", {}, [(b"\xff", "", b"")])), batch(request("a", {}, [("b", b"\xff", b"")]))):
        for read in (read_by_torchserve, read_by_pipeline):
            with pytest.raises(UnicodeDecodeError):
                read(Pieces(stream))


def test_requests_with_equal_headers_do_not_share_them():
    headers = {"Host": "h"}
    stream = batch(*(request(name, headers, [("body", "", b"x")]) for name in "abc"))
    processors = read_by_pipeline(Pieces(stream))[1].processors
    processors[0].get_request_properties()["Host"] = "changed"
    processors[0].get_request_properties()["body"]["content-type"] = "changed"
    assert [p.get_request_properties() for p in processors[1:]] == [{"Host": "h", "body": {"content-type": ""}}] * 2


def test_nothing_is_lost_when_readers_change_between_two_messages():
    ours, frontend = socket.socketpair()
    with ours, frontend:
        first, second = load("m", "/m"), batch(request("a", {}, [("body", "", b"x")]))
        frontend.sendall(first + second)
        assert upstream.retrieve_msg(ours)[0] == b"L"
        assert Pipeline().retrieve_msg(ours)[1].inputs == [{"body": b"x"}]


class Timed:
    """A connection and its clock: each message arrives the given number of milliseconds after it is first awaited."""

    def __init__(self, delays):
        self._delays, self._message = iter(delays), batch(request("a", {}, [("body", "", b"x")]))
        self._due = None
        self.now, self.sleeps, self.polls = 0.0, 0, 0

    def monotonic_ns(self):
        return self.now

    def recv(self, _size, flags=0):
        if self._due is None:
            self._due = self.now + next(self._delays) * 1_000_000
        if flags:
            self.polls += 1
            self.now += 10_000
            if self.now < self._due:
                raise BlockingIOError
        else:
            self.sleeps += 1
            self.now = max(self.now, self._due)
        self._due = None
        return self._message


@pytest.mark.skipif(not hasattr(os, "sched_yield"), reason="this system has no sched_yield")
@pytest.mark.parametrize(
    ("delays", "sleeps", "polls"),
    [
        # The reader sleeps through the first wait, whose length decides whether it spins in the next.
        pytest.param([0.1, 0.1, 0.2], 1, 10 + 20, id="frequent messages"),
        pytest.param([3, 3, 3], 3, 0, id="rare messages"),
        pytest.param([0.1, 3, 3, 3], 4, 50, id="frequent messages that pause"),
        pytest.param([3, 0.1, 0.1], 2, 10, id="rare messages that become frequent"),
    ],
)
def test_the_reader_spins_only_while_messages_are_frequent(delays, sleeps, polls, monkeypatch):
    connection, reader = Timed(delays), Pipeline()
    monkeypatch.setattr(wire, "time", connection)
    for _ in delays:
        assert read_by_pipeline(connection, reader)[1].inputs == [{"body": b"x"}]
    assert (connection.sleeps, connection.polls) == (sleeps, polls)


def test_a_connection_closed_while_the_reader_spins_ends_the_worker():
    ours, frontend = socket.socketpair()
    reader = Pipeline()
    with ours:
        with frontend:
            for _ in range(2):
                frontend.sendall(batch(request("a", {}, [("body", "", b"x")])))
                assert reader.retrieve_msg(ours)[1].inputs == [{"body": b"x"}]
        with pytest.raises(SystemExit) as exit_:
            reader.retrieve_msg(ours)
    assert exit_.value.code == 0


def test_a_body_of_64_mib_is_held_at_most_three_times():
    size = 64 << 20
    value = bytes(range(256)) * (size // 256)
    stream = batch(request("a", {"Host": "h"}, [("body", "application/octet-stream", value)]))
    ours, frontend = socket.socketpair()
    with ours, frontend:
        sender = threading.Thread(target=frontend.sendall, args=(stream,))
        tracemalloc.start()
        try:
            sender.start()
            body = Pipeline().retrieve_msg(ours)[1].inputs[0]["body"]
            held = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            sender.join(60)
    assert body == value
    # The buffer, which grows by an eighth at a time, and the copy that the handler gets.
    assert held < 3 * size


@pytest.mark.parametrize("names", [["file"] * 3, ["a", "a", "b", "a"], ["body", "body"]], ids=str)
def test_parts_of_the_same_name_all_arrive_in_order(names):
    parts = [(name, f"text/{place}", str(place).encode()) for place, name in enumerate(names)]
    stream = batch(request("a", {"Content-Type": "multipart/form-data; boundary=b", "file": "header"}, parts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TS_DECODE_INPUT_REQUEST", "false")
        processors, (inputs,), _ = read_by_pipeline(Pieces(stream))[1]
    assert list(map(str.encode, inputs)) == [name.encode() for name in names]
    parsed = requests.parse(inputs, processors[0].get_request_properties())
    assert [part.body for part in parsed.parts] == [value for _, _, value in parts]
    # A request's header takes precedence over the content type of the part of that name, as in TorchServe.
    expected = ["" if name == "file" and not place else f"text/{place}" for place, name in enumerate(names)]
    assert [part.content_type for part in parsed.parts] == expected


def test_a_repeated_name_is_a_separate_key():
    first, second = wire.RepeatedName("file"), wire.RepeatedName("file")
    names = {"file": 1, first: 2, second: 3}
    assert (names["file"], names[first], names[second]) == (1, 2, 3)
    assert first != second
    assert first != "file"
    assert f"{first}" == "file"


def context_of(answers):
    context = Context("m", "/m", {}, len(answers), None, "0.12.0")
    context.request_processor = [RequestProcessor({}) for _ in answers]
    for place, (_, status, headers) in enumerate(answers):
        if status is not None:
            context.set_response_status(*status, place)
        for name, value in headers.items():
            context.set_response_header(place, name, value)
    return context


ASCII = st.text(st.characters(codec="ascii"), max_size=8)
NOT_BYTES = st.binary(max_size=20).map(bytearray) | TEXTS | st.just({"a": [1]}) | st.just(object())
HEADERS = st.dictionaries(st.sampled_from(["content-type", "x-ž", "a"]), ASCII) | st.fixed_dictionaries(
    {"ts_stream_next": st.sampled_from(["true", "false"])}
)
STATUSES = st.none() | st.tuples(st.sampled_from([200, 404, None]), ASCII | st.none())
ANSWERS = st.lists(st.tuples(st.binary(max_size=20), STATUSES, HEADERS), max_size=4) | st.lists(
    st.tuples(st.binary(max_size=20) | NOT_BYTES, STATUSES, HEADERS), max_size=4
)


@settings(deadline=None)
@example([(b"a", (None, None), {}), (b"b", (404, "Not Found"), {"content-type": "a/b"})], "", 200, False)
@example([(b"a", None, {}), (b"b", None, {"ts_stream_next": "true"})], "", 200, False)
@example([(b"a", None, {"ts_stream_next": "false"})], "", 200, True)
@given(ANSWERS, TEXTS, st.sampled_from([200, 503]), st.booleans())
def test_any_answers_are_written_as_torchserve_writes_them(answers, message, code, more):
    ids = {place: f"request-{place}" for place in range(len(answers))}
    bodies = [body for body, _, _ in answers]

    def written(write):
        return bytes(write(bodies, ids, message, code, context_of(answers), more))

    assert written(wire.create_predict_response) == written(upstream.create_predict_response)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4), HEADERS, TEXTS)
def test_answers_with_the_same_headers_are_written_as_torchserve_writes_them(bodies, headers, message):
    headers.pop("ts_stream_next", None)
    ids = {place: f"request-{place}" for place in range(len(bodies))}
    context = context_of([(body, None, headers) for body in bodies])
    expected = bytes(upstream.create_predict_response(bodies, ids, message, 200, context))
    processors = request_patterns.Processors(
        request_patterns.Pattern([], [], "body", {}), [[bytearray(body)] for body in bodies]
    )
    processors.headers = headers
    context.request_processor = processors
    assert wire.create_predict_response(bodies, ids, message, 200, context) == expected


@pytest.mark.parametrize(("ret", "context"), [(None, None), ([b"x"], None), (None, context_of([(b"", None, {})]))])
def test_a_failed_batch_is_answered_as_torchserve_answers_it(ret, context):
    arguments = (ret, {0: "a"}, "Prediction failed", 503, context)
    assert wire.create_predict_response(*arguments) == upstream.create_predict_response(*arguments)


def test_stopping_criteria_still_apply():
    context = context_of([(b"x", None, {})])
    context.stopping_criteria = [lambda _: False]
    written = wire.create_predict_response([b"x"], {0: "a"}, "", 200, context)
    assert context.get_response_headers(0) == {"ts_stream_next": "true"}
    assert b"ts_stream_next" in written


def test_the_length_of_a_content_type_is_in_bytes():
    # TorchServe counts characters, so the frontend would misread the rest of the answer.
    written = wire.create_predict_response([b"x"], {0: "a"}, "", 200, context_of([(b"x", None, {"content-type": "ž"})]))
    assert field("a") + field("ž") in written
