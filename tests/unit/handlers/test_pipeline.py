"""handlers.transport.pipeline with a frontend that gathers and sends as TorchServe's ContinuousBatching does."""

import contextlib
import io
import logging
import socket
import time
import types
from typing import Any

import pytest
import ts
from hypothesis import given, settings
from hypothesis import strategies as st
from ts import service
from ts.context import Context, RequestProcessor
from ts.protocol import otf_message_handler as upstream
from ts.service import Service

from handlers.transport import pipeline, wire
from handlers.transport.pipeline import Pipeline
from handlers.transport.worker_lock import WorkerLock
from tests.support.worker_messages import Answers, Pieces, batch, load, request

HEADERS = {"Host": "h", "explain": "False"}


def request_of(name, kind=0, size=8):
    """A request whose body is its id; requests of a kind have the same headers."""
    parameters = [("body", "application/octet-stream", name.encode().ljust(size))]
    return request(name, {**HEADERS, "X-Kind": str(kind)}, parameters)


class DoneError(Exception):
    """Every request is answered, and no more arrive."""


class Frontend:
    """The other end of a worker's connection, and the callers behind it.

    Args:
        arrivals: groups of requests by id; one group arrives with each answer.
        size: the batch size, which limits the requests in work.
        lateness: for each message, how many reads without a wait find nothing.
        cut: most bytes that one read returns.
    """

    def __init__(self, arrivals, size=8, lateness=(), cut=1 << 20):
        self._arrivals, self._size, self._cut = list(arrivals), size, cut
        self._lateness, self._late = iter(lateness), 0
        self._queue, self._stream = {}, b""
        self.jobs, self.answers, self.failed, self.parts = {}, {}, [], []

    def recv(self, size, flags=0):
        if not self._stream and not self.jobs:
            while not self._queue:
                if not self._arrivals:
                    raise DoneError
                self._queue.update(self._arrivals.pop(0))
            self._send()
        if flags & socket.MSG_DONTWAIT and (self._late or not self._stream):
            self._late = max(self._late - 1, 0)
            raise BlockingIOError
        assert self._stream, "deadlock: the worker waits for a message, and the frontend for answers"
        self._late = 0
        size = min(size, self._cut)
        piece, self._stream = self._stream[:size], self._stream[size:]
        return piece

    def sendall(self, message):
        # TorchServe writes each message in a thread of its own, so a later one may overtake it.
        assert not self._stream, "the worker sent answers before it read their message"
        code, _, answers = Answers(io.BytesIO(message)).read()
        if code == 200:
            for answer in answers:
                assert answer["id"] in self.jobs, "the worker answered a request that is not in work"
                del self.jobs[answer["id"]]
                self.answers[answer["id"]] = answer["body"]
            self.parts.append(len(answers))
        else:
            self.failed += self.jobs
            self.jobs.clear()
        if self._arrivals:
            self._queue.update(self._arrivals.pop(0))
        if self.jobs:
            self._send()

    def _send(self):
        for name in list(self._queue)[: self._size - len(self.jobs)]:
            self.jobs[name] = self._queue.pop(name)
        self._stream += batch(*self.jobs.values())
        self._late = next(self._lateness, 0)


class ScriptedLock(WorkerLock):
    """A lock whose ``acquire`` returns the given values, and then always true."""

    def __init__(self, acquires=()):
        self._acquires = iter(acquires)
        self.held = False

    def acquire(self):
        self.held = next(self._acquires, True)
        return self.held

    def release(self):
        self.held = False


def context_of(message):
    context = Context("m", "/m", {}, len(message.ids), None, "0.12.0")
    context.request_processor = [RequestProcessor({}) for _ in message.ids]
    return context


def serve(frontend, worker, codes=()):
    """Answer each request with its body, in a loop as TorchServe's, until no more requests arrive."""
    codes = iter(codes)
    while True:
        try:
            command, message = worker.retrieve_msg(frontend)
        except DoneError:
            return
        assert command == b"I"
        bodies = [bytes(values["body"]) for values in message.inputs]
        assert [body.decode().strip() for body in bodies] == list(message.ids.values())
        if next(codes, 200) == 200:
            answers = worker.create_predict_response(bodies, message.ids, "", 200, context_of(message))
        else:
            answers = worker.create_predict_response(None, message.ids, "Prediction failed", 503)
        frontend.sendall(answers)


@pytest.fixture(autouse=True)
def undecoded(monkeypatch):
    monkeypatch.setenv("TS_DECODE_INPUT_REQUEST", "false")


GROUPS = st.lists(st.lists(st.integers(0, 1), max_size=24), max_size=12)


@settings(deadline=None)
@given(
    groups=GROUPS,
    size=st.integers(1, 32),
    lateness=st.lists(st.integers(0, 3), max_size=20),
    cut=st.sampled_from([7, 100, 1 << 20]),
    alone=st.none() | st.lists(st.booleans(), max_size=20),
    codes=st.lists(st.sampled_from([200, 200, 200, 503]), max_size=20),
)
def test_every_request_is_answered_once(groups, size, lateness, cut, alone, codes):
    # Ids of one length, as TorchServe's are: the reader compares an id before all of it has arrived.
    arrivals = [
        {name: request_of(name, kind) for place, kind in enumerate(group) for name in [f"{number:02}-{place:02}"]}
        for number, group in enumerate(groups)
    ]
    frontend = Frontend(arrivals, size, lateness, cut)
    lock = None if alone is None else ScriptedLock(alone)
    serve(frontend, Pipeline(lock), codes)
    names = {name for group in arrivals for name in group}
    assert frontend.answers.keys() | set(frontend.failed) == names
    assert not frontend.answers.keys() & set(frontend.failed)
    assert all(body.decode().strip() == name for name, body in frontend.answers.items())
    if lock is None:
        assert not frontend.jobs
    else:
        assert not lock.held


def crowd(count, size=8):
    return {f"r{place}": request_of(f"r{place}", size=size) for place in range(count)}


def test_a_part_is_answered_while_the_rest_waits():
    frontend = Frontend([crowd(32)], size=32)
    serve(frontend, Pipeline(ScriptedLock()))
    assert frontend.parts[0] == 24
    assert sum(frontend.parts) == 32


def arrivals_of(*counts):
    """Groups of these many requests, as ``Frontend`` takes them."""
    return [
        {name: request_of(name) for name in (f"{number}-{place}" for place in range(count))}
        for number, count in enumerate(counts)
    ]


def test_with_few_callers_the_worker_gathers_so_that_parts_stay_large():
    # Some callers send the next request as soon as they are answered, and others later.
    frontend = Frontend(arrivals_of(8, 3, 2, 2, 5, 2))
    serve(frontend, Pipeline(ScriptedLock()))
    assert [part for part in frontend.parts if part] == [7, 7, 7, 1]


def test_gathering_ends_after_three_polls():
    frontend = Frontend(arrivals_of(8, 2, 0, 0, 0, 0, 0, 2))
    serve(frontend, Pipeline(ScriptedLock()))
    assert frontend.parts[:5] == [7, 0, 0, 0, 2]


def test_enough_waiting_requests_are_computed_without_a_poll():
    frontend = Frontend(arrivals_of(8, 7, 3))
    serve(frontend, Pipeline(ScriptedLock()))
    assert frontend.parts[:2] == [7, 7]


def test_gathering_ends_when_another_worker_has_started():
    frontend = Frontend(arrivals_of(8, 2, 1, 1))
    serve(frontend, Pipeline(ScriptedLock([True] + [False] * 9)))
    assert frontend.parts[:2] == [7, 3]


@pytest.mark.parametrize(("before", "part"), [([8, 19], 19), ([32, 12] + [15] * 20, 15)], ids=["few", "many"])
def test_twenty_waiting_requests_are_split_by_how_many_waited_before(before, part):
    frontend = Frontend(arrivals_of(*before, 99), size=32)
    serve(frontend, Pipeline(ScriptedLock()))
    assert frontend.parts[len(before) - 1] == part


def test_with_many_callers_the_worker_does_not_gather():
    frontend = Frontend(arrivals_of(32, 4, 4, 4), size=32)
    serve(frontend, Pipeline(ScriptedLock()))
    assert frontend.parts[:3] == [24, 9, 5]


def test_a_late_message_is_read_before_the_answers_to_it():
    frontend = Frontend([crowd(32)], size=32, lateness=[0, 9])
    serve(frontend, Pipeline(ScriptedLock()))
    assert frontend.parts[:2] == [24, 6]


def test_requests_that_arrive_meanwhile_are_computed_without_a_wait_for_a_batch():
    frontend = Frontend(arrivals_of(*[2] * 6))
    serve(frontend, Pipeline(ScriptedLock()))
    # Some request was in work until the last had arrived. Otherwise the frontend would have waited for more.
    assert len(frontend.answers) == 12
    assert frontend.parts[-1] == 1


def test_a_single_caller_gets_each_answer_in_one_message(monkeypatch):
    frontend = Frontend([{name: request_of(name)} for name in "abc"])
    monkeypatch.setattr(frontend, "sendall", types.MethodType(without_arrivals(Frontend.sendall), frontend))
    serve(frontend, Pipeline(ScriptedLock()))
    assert frontend.parts == [1, 1, 1]


def without_arrivals(sendall):
    """The next request arrives after the last answer, and not with it."""

    def send(self, message):
        kept, self._arrivals = self._arrivals, []
        sendall(self, message)
        self._arrivals = kept

    return send


@pytest.mark.parametrize("lock", [None, ScriptedLock([False] * 9)], ids=["no continuous batching", "several workers"])
def test_without_the_lock_each_message_is_answered_as_a_whole(lock):
    frontend = Frontend([crowd(8), {"a": request_of("a"), "b": request_of("b")}])
    serve(frontend, Pipeline(lock))
    assert frontend.parts == [8, 2]


def test_large_requests_are_not_sent_again():
    frontend = Frontend([crowd(4, size=1 << 19)])
    serve(frontend, Pipeline(ScriptedLock()))
    assert frontend.parts == [4]


def test_a_failure_ends_all_requests_in_work():
    frontend = Frontend([crowd(8), {"later": request_of("later")}])
    serve(frontend, Pipeline(ScriptedLock()), [503])
    assert frontend.failed == [f"r{place}" for place in range(8)]
    assert frontend.answers.keys() == {"later"}


def test_a_worker_is_busy_unless_it_waits_for_a_message():
    class SlowFrontend(Frontend):
        def recv(self, size, flags=0):
            time.sleep(0.05)
            return super().recv(size, flags)

    frontend: Any
    frontend, pipeline_ = SlowFrontend([{name: request_of(name)} for name in "abc"]), Pipeline()
    began = time.monotonic()
    messages = 0
    with contextlib.suppress(DoneError):
        while True:
            _, message = pipeline_.retrieve_msg(frontend)
            time.sleep(0.03)
            messages += 1
            bodies = [body["body"] for body in message.inputs]
            frontend.sendall(pipeline_.create_predict_response(bodies, message.ids, "", 200, context_of(message)))
    assert messages == 3
    ended = time.monotonic()
    assert 3 * 0.03 <= pipeline_.busy_seconds() <= ended - began - 3 * 0.05
    # One request at a time, in work while the worker is busy.
    assert 3 * 0.03 <= pipeline_.request_seconds() <= ended - began - 3 * 0.05


def test_a_request_is_in_work_from_its_message_to_its_answer():
    frontend: Any
    frontend, pipeline_ = Frontend([crowd(8)]), Pipeline(ScriptedLock())
    _, message = pipeline_.retrieve_msg(frontend)
    before = pipeline_.request_seconds(), time.monotonic()
    time.sleep(0.05)
    after = pipeline_.request_seconds(), time.monotonic()
    # All eight, also those that are left for the next part.
    assert len(message.ids) < 8
    assert after[0] - before[0] == pytest.approx(8 * (after[1] - before[1]), rel=0.2)


@pytest.fixture
def worker(monkeypatch):
    """A stand-in for the worker's main module; TorchServe's functions are restored afterwards."""
    monkeypatch.setattr(Service, "retrieve_data_for_inference", Service.retrieve_data_for_inference)
    monkeypatch.setattr(service, "create_predict_response", upstream.create_predict_response)
    return types.SimpleNamespace(retrieve_msg=upstream.retrieve_msg)


def test_an_installed_pipeline_handles_the_next_message_and_logs_it(worker, caplog):
    with caplog.at_level(logging.INFO):
        assert pipeline.install(worker=worker)
    assert f"replaces the reader and writer of TorchServe {ts.__version__}" in caplog.text
    _, message = worker.retrieve_msg(Pieces(batch(request_of("a"))))
    assert Service.retrieve_data_for_inference(message) is message
    answers = service.create_predict_response([b"x"], message.ids, "", 200, context_of(message))
    assert answers == wire.create_predict_response([b"x"], message.ids, "", 200, context_of(message))


def test_an_installed_pipeline_leaves_torchserves_messages_to_torchserve(worker):
    assert pipeline.install(worker=worker)
    stream = batch(request("a", {"Host": "h"}, [("body", "", b"x")]))
    _, inputs, ids = Service.retrieve_data_for_inference(upstream.retrieve_msg(Pieces(stream))[1])
    assert (inputs, ids) == ([{"body": b"x"}], {0: "a"})
    assert worker.retrieve_msg(Pieces(load("m", "/m")))[0] == b"L"


@pytest.mark.parametrize("folder", [True, False], ids=["continuous batching", "none"])
def test_a_message_is_answered_in_parts_only_with_continuous_batching(worker, tmp_path, folder):
    pipeline.install(tmp_path if folder else None, worker)
    _, message = worker.retrieve_msg(Pieces(batch(*crowd(8).values())))
    assert len(message.ids) == (7 if folder else 8)


def test_without_a_usable_folder_messages_are_answered_as_a_whole(worker, tmp_path, caplog):
    assert pipeline.install(tmp_path / "missing", worker)
    assert "Answering each message as a whole" in caplog.text
    _, message = worker.retrieve_msg(Pieces(batch(*crowd(8).values())))
    assert len(message.ids) == 8


@pytest.mark.parametrize("version", ["0.12.1", "0.11.1", "0.12.0b20250101"])
def test_another_version_of_torchserve_keeps_its_own_reader(worker, monkeypatch, caplog, version):
    monkeypatch.setattr(ts, "__version__", version)
    retrieve = Service.retrieve_data_for_inference
    with caplog.at_level(logging.INFO):
        assert not pipeline.install(worker=worker)
    assert f"Using TorchServe's own reader: TorchServe is {version}" in caplog.text
    assert worker.retrieve_msg is upstream.retrieve_msg
    assert Service.retrieve_data_for_inference is retrieve
    assert service.create_predict_response is upstream.create_predict_response


def test_a_switch_leaves_torchserves_own_code_in_place(worker, monkeypatch, caplog):
    monkeypatch.setenv(pipeline.VARIABLE, "torchserve")
    retrieve = Service.retrieve_data_for_inference
    with caplog.at_level(logging.INFO):
        assert not pipeline.install(worker=worker)
    assert "Using TorchServe's own reader: FASHION_WIRE=torchserve" in caplog.text
    assert worker.retrieve_msg is upstream.retrieve_msg
    assert Service.retrieve_data_for_inference is retrieve
    assert service.create_predict_response is upstream.create_predict_response


def test_an_empty_switch_counts_as_unset_and_another_value_is_refused(worker, monkeypatch):
    monkeypatch.setenv(pipeline.VARIABLE, "TorchServe")
    with pytest.raises(ValueError, match="FASHION_WIRE must be torchserve or unset, got 'TorchServe'"):
        pipeline.install(worker=worker)
    monkeypatch.setenv(pipeline.VARIABLE, "")
    assert pipeline.install(worker=worker)


@pytest.mark.parametrize("main", [None, types.SimpleNamespace(retrieve_msg=len)], ids=["no reader", "another reader"])
def test_the_pipeline_is_not_installed_outside_a_worker(caplog, main):
    with caplog.at_level(logging.INFO):
        assert not pipeline.install(worker=main)
    assert "not a TorchServe worker" in caplog.text
    assert service.create_predict_response is upstream.create_predict_response


def test_the_pipeline_answers_in_parts_with_a_real_lock(tmp_path):
    frontend = Frontend([crowd(8)])
    serve(frontend, Pipeline(WorkerLock(tmp_path)))

    assert frontend.parts[0] == 7
