"""handlers.transport.pipeline against a frontend that gathers and sends as TorchServe's ContinuousBatching does."""

import io
import logging
import socket
import types

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
from handlers.transport.worker_lock import Siblings
from tests.support.worker_messages import Answers, Pieces, batch, load, request

HEADERS = {"Host": "h", "explain": "False"}


def asked(name, kind=0, size=8):
    """A request whose answer is told by its body; those of a kind are alike."""
    parameters = [("body", "application/octet-stream", name.encode().ljust(size))]
    return request(name, {**HEADERS, "X-Kind": str(kind)}, parameters)


class DoneError(Exception):
    """Everything is answered and nothing more comes."""


class Frontend:
    """The other end of a worker's connection, and the callers behind it.

    Args:
        arrivals: groups of requests, ids and messages; one group arrives with each answer.
        size: most requests in work.
        lateness: how often each message is not there yet for a worker that does not wait.
        cut: bytes that a worker gets at once.
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
        assert self._stream, "the worker waits for a message, and the frontend for answers"
        self._late = 0
        size = min(size, self._cut)
        piece, self._stream = self._stream[:size], self._stream[size:]
        return piece

    def sendall(self, message):
        # TorchServe writes the next message in a thread of its own, and the one after that may overtake it.
        assert not self._stream, "answers before their message was read"
        code, _, answers = Answers(io.BytesIO(message)).read()
        if code == 200:
            for answer in answers:
                assert answer["id"] in self.jobs, "an answer to a request that is not in work"
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


class Others:
    """Siblings that come and go as told."""

    def __init__(self, none=()):
        self._none = iter(none)
        self.waits = False

    def none(self):
        self.waits = next(self._none, True)
        return self.waits

    def let_come(self):
        self.waits = False


def context_of(found):
    context = Context("m", "/m", {}, len(found.ids), None, "0.12.0")
    context.request_processor = [RequestProcessor({}) for _ in found.ids]
    return context


def serve(frontend, worker, codes=()):
    """Answer each request with its body, as TorchServe's loop does, until the frontend has nothing more."""
    codes = iter(codes)
    while True:
        try:
            command, found = worker.retrieve_msg(frontend)
        except DoneError:
            return
        assert command == b"I"
        bodies = [bytes(values["body"]) for values in found.inputs]
        assert [body.decode().strip() for body in bodies] == list(found.ids.values())
        if next(codes, 200) == 200:
            answers = worker.create_predict_response(bodies, found.ids, "", 200, context_of(found))
        else:
            answers = worker.create_predict_response(None, found.ids, "Prediction failed", 503)
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
    arrivals = [
        {name: asked(name, kind) for place, kind in enumerate(group) for name in [f"{number}-{place}"]}
        for number, group in enumerate(groups)
    ]
    frontend = Frontend(arrivals, size, lateness, cut)
    siblings = None if alone is None else Others(alone)
    serve(frontend, Pipeline(siblings), codes)
    names = {name for group in arrivals for name in group}
    assert frontend.answers.keys() | set(frontend.failed) == names
    assert not frontend.answers.keys() & set(frontend.failed)
    assert all(body.decode().strip() == name for name, body in frontend.answers.items())
    if siblings is None:
        assert not frontend.jobs
    else:
        assert not siblings.waits


def crowd(count, size=8):
    return {f"r{place}": asked(f"r{place}", size=size) for place in range(count)}


def test_a_part_is_answered_while_the_rest_waits():
    frontend = Frontend([crowd(32)], size=32)
    serve(frontend, Pipeline(Others()))
    assert frontend.parts[0] == 24
    assert sum(frontend.parts) == 32


def groups(*counts):
    """Arrivals."""
    return [
        {name: asked(name) for name in (f"{number}-{place}" for place in range(count))}
        for number, count in enumerate(counts)
    ]


def test_few_callers_are_waited_for_so_that_parts_stay_large():
    # Of those that were answered first, some come back with the answers, and the others later.
    frontend = Frontend(groups(8, 3, 2, 2, 5, 2))
    serve(frontend, Pipeline(Others()))
    assert [part for part in frontend.parts if part] == [7, 7, 7, 1]


def test_who_does_not_come_is_not_waited_for_long():
    frontend = Frontend(groups(8, 2, 0, 0, 0, 0, 0, 2))
    serve(frontend, Pipeline(Others()))
    assert frontend.parts[:5] == [7, 0, 0, 0, 2]


def test_who_is_there_is_not_waited_for():
    frontend = Frontend(groups(8, 7, 3))
    serve(frontend, Pipeline(Others()))
    assert frontend.parts[:2] == [7, 7]


def test_no_callers_are_waited_for_when_a_sibling_has_come():
    frontend = Frontend(groups(8, 2, 1, 1))
    serve(frontend, Pipeline(Others([True] + [False] * 9)))
    assert frontend.parts[:2] == [7, 3]


@pytest.mark.parametrize(("before", "part"), [([8, 19], 19), ([32, 12] + [15] * 20, 15)], ids=["few", "many"])
def test_of_twenty_that_wait_one_or_five_are_left_by_what_was_before(before, part):
    frontend = Frontend(groups(*before, 99), size=32)
    serve(frontend, Pipeline(Others()))
    assert frontend.parts[len(before) - 1] == part


def test_many_callers_are_not_waited_for():
    frontend = Frontend(groups(32, 4, 4, 4), size=32)
    serve(frontend, Pipeline(Others()))
    assert frontend.parts[:3] == [24, 9, 5]


def test_a_late_message_is_read_before_the_answers_to_it():
    frontend = Frontend([crowd(32)], size=32, lateness=[0, 9])
    serve(frontend, Pipeline(Others()))
    assert frontend.parts[:2] == [24, 6]


def test_requests_that_come_meanwhile_are_computed_without_a_wait_for_a_batch():
    frontend = Frontend(groups(*[2] * 6))
    serve(frontend, Pipeline(Others()))
    # Never was nothing in work until the last had come: then the frontend would have waited for more.
    assert len(frontend.answers) == 12
    assert frontend.parts[-1] == 1


def test_a_lone_caller_is_answered_by_one_message():
    frontend = Frontend([{name: asked(name)} for name in "abc"])
    frontend.sendall = types.MethodType(without_arrivals(Frontend.sendall), frontend)
    serve(frontend, Pipeline(Others()))
    assert frontend.parts == [1, 1, 1]


def without_arrivals(sendall):
    """The next caller comes when the last has its answer, and not with it."""

    def send(self, message):
        kept, self._arrivals = self._arrivals, []
        sendall(self, message)
        self._arrivals = kept

    return send


@pytest.mark.parametrize("siblings", [None, Others([False] * 9)], ids=["no continuous batching", "several workers"])
def test_elsewhere_each_message_is_answered_as_a_whole(siblings):
    frontend = Frontend([crowd(8), {"a": asked("a"), "b": asked("b")}])
    serve(frontend, Pipeline(siblings))
    assert frontend.parts == [8, 2]


def test_large_requests_are_not_sent_again():
    frontend = Frontend([crowd(4, size=1 << 19)])
    serve(frontend, Pipeline(Others()))
    assert frontend.parts == [4]


def test_a_failure_ends_all_requests_in_work():
    frontend = Frontend([crowd(8), {"later": asked("later")}])
    serve(frontend, Pipeline(Others()), [503])
    assert frontend.failed == [f"r{place}" for place in range(8)]
    assert frontend.answers.keys() == {"later"}


@pytest.fixture
def worker(monkeypatch):
    """A module with the names of the worker's, and TorchServe's functions put back afterwards."""
    monkeypatch.setattr(Service, "retrieve_data_for_inference", Service.retrieve_data_for_inference)
    monkeypatch.setattr(service, "create_predict_response", upstream.create_predict_response)
    return types.SimpleNamespace(retrieve_msg=upstream.retrieve_msg)


def test_installed_it_serves_the_next_message_and_says_so(worker, caplog):
    with caplog.at_level(logging.INFO):
        assert pipeline.install(worker=worker)
    assert f"in the place of TorchServe {ts.__version__}" in caplog.text
    _, message = worker.retrieve_msg(Pieces(batch(asked("a"))))
    assert Service.retrieve_data_for_inference(message) is message
    answers = service.create_predict_response([b"x"], message.ids, "", 200, context_of(message))
    assert answers == wire.create_predict_response([b"x"], message.ids, "", 200, context_of(message))


def test_installed_it_leaves_torchserves_messages_to_torchserve(worker):
    assert pipeline.install(worker=worker)
    stream = batch(request("a", {"Host": "h"}, [("body", "", b"x")]))
    _, inputs, ids = Service.retrieve_data_for_inference(upstream.retrieve_msg(Pieces(stream))[1])
    assert (inputs, ids) == ([{"body": b"x"}], {0: "a"})
    assert worker.retrieve_msg(Pieces(load("m", "/m")))[0] == b"L"


@pytest.mark.parametrize("folder", [True, False], ids=["continuous batching", "none"])
def test_only_where_the_frontend_knows_of_it_a_message_is_answered_in_parts(worker, tmp_path, folder):
    pipeline.install(tmp_path if folder else None, worker)
    _, found = worker.retrieve_msg(Pieces(batch(*crowd(8).values())))
    assert len(found.ids) == (7 if folder else 8)


def test_a_folder_that_cannot_be_used_costs_the_pipeline_alone(worker, tmp_path, caplog):
    assert pipeline.install(tmp_path / "missing", worker)
    assert "Each message is answered as a whole" in caplog.text
    _, found = worker.retrieve_msg(Pieces(batch(*crowd(8).values())))
    assert len(found.ids) == 8


@pytest.mark.parametrize("version", ["0.12.1", "0.11.1", "0.12.0b20250101"])
def test_another_version_of_torchserve_keeps_its_own_reader(worker, monkeypatch, caplog, version):
    monkeypatch.setattr(ts, "__version__", version)
    retrieve = Service.retrieve_data_for_inference
    with caplog.at_level(logging.INFO):
        assert not pipeline.install(worker=worker)
    assert f"TorchServe's reader serves: it is version {version}" in caplog.text
    assert worker.retrieve_msg is upstream.retrieve_msg
    assert Service.retrieve_data_for_inference is retrieve
    assert service.create_predict_response is upstream.create_predict_response


def test_a_switch_leaves_torchserves_own_code_in_place(worker, monkeypatch, caplog):
    monkeypatch.setenv(pipeline.VARIABLE, "torchserve")
    retrieve = Service.retrieve_data_for_inference
    with caplog.at_level(logging.INFO):
        assert not pipeline.install(worker=worker)
    assert "TorchServe's reader serves: FASHION_WIRE=torchserve" in caplog.text
    assert worker.retrieve_msg is upstream.retrieve_msg
    assert Service.retrieve_data_for_inference is retrieve
    assert service.create_predict_response is upstream.create_predict_response


def test_an_empty_switch_is_none_and_another_value_is_refused(worker, monkeypatch):
    monkeypatch.setenv(pipeline.VARIABLE, "TorchServe")
    with pytest.raises(ValueError, match="FASHION_WIRE must be torchserve or unset, got 'TorchServe'"):
        pipeline.install(worker=worker)
    monkeypatch.setenv(pipeline.VARIABLE, "")
    assert pipeline.install(worker=worker)


@pytest.mark.parametrize("main", [None, types.SimpleNamespace(retrieve_msg=len)], ids=["no reader", "another reader"])
def test_a_process_that_is_no_worker_stays_as_it_is(caplog, main):
    with caplog.at_level(logging.INFO):
        assert not pipeline.install(worker=main)
    assert "not one of its workers" in caplog.text
    assert service.create_predict_response is upstream.create_predict_response


def test_siblings_of_a_pipeline_are_real_ones(tmp_path):
    frontend = Frontend([crowd(8)])
    serve(frontend, Pipeline(Siblings(tmp_path)))
    assert frontend.parts[0] == 7
