"""How the gateway handles a failing inference server: a retry where that may help, else a problem."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests

from serving import settings
from serving.gateway import reload
from serving.polling import wait_until
from tests.support import free_ports, gateways
from tests.support.gateways import PROBLEM
from tests.support.upstreams import DROP, SILENT, ScriptedUpstream, answer

TIMEOUT = 60
TORCHSERVE = b'{"code": %d, "type": "SomeException", "message": "no worker to serve inference request"}'


@pytest.fixture(scope="module")
def upstream():
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def gateway(upstream, tmp_path_factory):
    """A gateway in front of the scripted server, without a front door."""
    base = settings.read({})
    (unused,) = free_ports.find(1)
    inference = dataclasses.replace(base.inference, number=upstream.port)
    frontdoor = dataclasses.replace(base.frontdoor, number=unused)
    with gateways.running(
        base, tmp_path_factory.mktemp("gateway"), inference=inference, frontdoor=frontdoor
    ) as gateway:
        yield gateway


def post(gateway, body=b"body", path="/predictions/m"):
    return requests.post(gateway.url + path, data=body, headers={"Content-Type": "image/png"}, timeout=TIMEOUT)


def failed(status):
    return answer(status, TORCHSERVE % status, "connection: close")


_WHOLE, _CHUNKS = b"body", (b"bo", b"dy")


@pytest.mark.parametrize(
    ("first", "body"),
    [
        pytest.param(first, body, id=f"{name}, {kind}")
        for name, first in {
            "reset": DROP,
            "500": failed(500),
            "503": failed(503),
            "507": failed(507),
            "half a head": answer(200)[:20],
        }.items()
        for kind, body in (("whole", _WHOLE), ("chunked", _CHUNKS))
        if (name, kind) != ("507", "chunked")
    ],
)
def test_a_failed_request_is_retried(gateway, upstream, first, body):
    upstream.play([first])
    answered = post(gateway, body if type(body) is bytes else iter(body))
    assert (answered.status_code, answered.content) == (200, b"{}")
    assert len(upstream.requests) == 2
    for head, received in upstream.requests:
        assert head.startswith(b"POST /predictions/m HTTP/1.1\r\n")
        assert received == b"body"


def test_507_for_a_chunked_request_is_503(gateway, upstream):
    upstream.play([failed(507)])
    answered = post(gateway, iter(_CHUNKS))
    # The second server, which has the complete body, answers 503 without a retry.
    assert (answered.status_code, answered.headers["Retry-After"]) == (503, "1")
    assert len(upstream.requests) == 1


def test_a_request_without_an_answer_is_retried(upstream, tmp_path):
    base = settings.read({})
    inference = dataclasses.replace(base.inference, number=upstream.port)
    with gateways.running(base, tmp_path, {"proxy_read_timeout": "1s"}, inference=inference) as gateway:
        for body in (_WHOLE, iter(_CHUNKS)):
            upstream.play([SILENT])
            answered = post(gateway, body)
            assert (answered.status_code, answered.content) == (200, b"{}")
            assert [received for _, received in upstream.requests] == [b"body"] * 2


@pytest.mark.parametrize(
    ("failure", "status", "kind", "tries"),
    [
        (DROP, 503, "unavailable", 2),
        (failed(503), 503, "unavailable", 2),
        (failed(500), 500, "internal", 2),
        (failed(507), 503, "unavailable", 2),
        (failed(504), 504, "timeout", 1),
    ],
    ids=["reset", "503", "500", "507", "504"],
)
def test_tries_are_bounded_and_the_last_failure_is_a_problem(gateway, upstream, failure, status, kind, tries):
    upstream.play([failure] * 10)
    answered = post(gateway)
    assert (answered.status_code, answered.headers["Content-Type"]) == (status, "application/problem+json")
    assert answered.json().keys() == PROBLEM
    assert (answered.json()["status"], answered.json()["type"]) == (status, f"urn:problem-type:fashion-serve:{kind}")
    assert "SomeException" not in answered.text
    assert answered.headers.get("Retry-After") == ("1" if status == 503 else None)
    # nginx does not count a try over a kept connection that turned out to be broken.
    limit = tries + (failure is DROP)
    assert tries <= len(upstream.requests) <= limit
    entry = gateway.access(answered.headers["X-Request-Id"])
    assert entry["status"] == status
    assert tries <= len(entry["upstream_status"].replace(" : ", ", ").split(", ")) <= limit


@pytest.mark.parametrize(("fleet", "connection"), [(False, "keep-alive"), (True, "close")], ids=["alone", "in a fleet"])
def test_503_ends_the_connection_in_a_fleet_only(upstream, tmp_path, fleet, connection):
    base = settings.read({})
    inference = dataclasses.replace(base.inference, number=upstream.port)
    with gateways.running(base, tmp_path, inference=inference, fleet=fleet) as gateway:
        for failure, status, expected in (([failed(503)] * 10, 503, connection), ([], 200, "keep-alive")):
            upstream.play(failure)
            answered = post(gateway)
            assert (answered.status_code, answered.headers["Connection"]) == (status, expected)
        assert answered.json() == {}


def test_a_connection_in_a_fleet_ends_soon(upstream, tmp_path):
    upstream.play([])
    base = settings.read({})
    inference = dataclasses.replace(base.inference, number=upstream.port)
    with gateways.running(base, tmp_path, inference=inference, fleet=True) as gateway, requests.Session() as session:

        def ended() -> bool:
            answered = session.post(f"{gateway.url}/predictions/m", data=b"body", timeout=TIMEOUT)
            assert answered.status_code == 200
            return answered.headers["Connection"] == "close"

        assert not ended()
        assert wait_until(ended, TIMEOUT)


def _next_descriptor(process):
    """The number of the next descriptor that a process would open."""
    used = {int(link.name) for link in Path(f"/proc/{process.pid}/fd").iterdir()}
    return next(number for number in itertools.count() if number not in used)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux changes the limits of another process")
@pytest.mark.parametrize("body", [b"body", [b"bo", b"dy"]], ids=["whole", "chunked"])
def test_a_lack_of_descriptors_is_503(upstream, tmp_path, body):
    upstream.play([])
    base = settings.read({})
    inference = dataclasses.replace(base.inference, number=upstream.port)
    with gateways.running(base, tmp_path, inference=inference) as gateway:
        master = int((tmp_path / "run" / "gateway" / "nginx.pid").read_text())
        # The master listens before it starts its workers.
        assert wait_until(lambda: psutil.Process(master).children(), 10)
        workers = psutil.Process(master).children()
        # Wait until the connection of the readiness check is closed.
        assert wait_until(
            lambda: {each.status for worker in workers for each in worker.net_connections()} == {"LISTEN"}, 10
        )
        for worker in workers:
            _, maximum = worker.rlimit(psutil.RLIMIT_NOFILE)
            # One for the client, none for TorchServe.
            worker.rlimit(psutil.RLIMIT_NOFILE, (_next_descriptor(worker) + 1, maximum))
        answered = post(gateway, body if type(body) is bytes else iter(body))
        assert (answered.status_code, answered.headers["Retry-After"]) == (503, "1")
        assert answered.json()["type"] == "urn:problem-type:fashion-serve:unavailable"
        for worker in workers:
            worker.rlimit(psutil.RLIMIT_NOFILE, (maximum, maximum))
        assert post(gateway).status_code == 200
        assert upstream.requests


@pytest.mark.parametrize("status", [400, 413, 415, 422, 406])
def test_client_errors_are_passed_on_without_a_retry(gateway, upstream, status):
    upstream.play([answer(status, b'{"detail": "the handler\'s"}', "x-request-id: 1")])
    answered = post(gateway)
    assert (answered.status_code, answered.json()) == (status, {"detail": "the handler's"})
    assert len(upstream.requests) == 1


def test_only_these_headers_reach_torchserve(gateway, upstream):
    upstream.play([])
    headers = {
        "Content-Type": "image/png",
        "Accept": "application/x-npy",
        "Inference-Header-Content-Length": "3",
        "X-Request-Id": "123e4567-e89b-12d3-a456-426614174000",
        "Authorization": "Bearer secret",
        "X-API-Key": "secret",
        "Cookie": "a=b",
        "X-Query": "top_k=1",
        "describe": "True",
        "explain": "True",
        "X-Forwarded-For": "1.2.3.4",
        "Accept-Encoding": "gzip",
    }
    path = "/v2/models/m/versions/2/infer?a=%20b&c"
    requests.post(gateway.url + path, data=b"body", headers=headers, timeout=TIMEOUT)
    requests.post(gateway.url + path, data=iter([b"body"]), headers=headers, timeout=TIMEOUT)
    assert len(upstream.requests) == 2
    for head, _ in upstream.requests:
        line, *sent = head.decode().strip().split("\r\n")
        assert line == "POST /predictions/m/2 HTTP/1.1"
        assert sorted(sent) == [
            "Accept: application/x-npy",
            "Content-Length: 4",
            "Content-Type: image/png",
            "Host: torchserve",
            "Inference-Header-Content-Length: 3",
            "X-Query: a=%20b&c",
            "X-Request-Id: 123e4567-e89b-12d3-a456-426614174000",
        ]


def test_a_form_gets_a_content_type_that_torchserve_does_not_parse(gateway, upstream):
    upstream.play([])
    for content_type in ("Multipart/form-data; boundary=x", "application/x-www-form-urlencoded"):
        headers = {"Content-Type": content_type, "Accept": ""}
        for body in (b"a=b", iter([b"a=b"])):
            requests.post(gateway.url + "/explanations/m", data=body, headers=headers, timeout=TIMEOUT)
            head, received = upstream.requests[-1]
            assert head.startswith(b"POST /explanations/m HTTP/1.1\r\n")
            assert b"\r\nContent-Type: application/octet-stream\r\n" in head
            assert f"\r\nX-Content-Type: {content_type}\r\n".encode() in head
            assert received == b"a=b"


def test_connections_to_torchserve_are_kept(gateway, upstream):
    upstream.play([])
    before = upstream.connections
    for _ in range(20):
        # Each on a new connection, so that any of nginx's workers may accept it.
        post(gateway)
    assert len(upstream.requests) == 20
    workers = psutil.Process(int((gateway.logs.parent / "run" / "gateway" / "nginx.pid").read_text())).children()
    assert upstream.connections - before <= len(workers) < 20


def test_a_reload_waits_for_a_slow_answer(tmp_path):
    body = bytes(1 << 20)
    received = threading.Event()

    class Slow(ScriptedUpstream):
        def next(self, _head, _body):
            received.set()
            time.sleep(8)
            return answer(200, body)

    base = settings.read({})
    with Slow() as slow, ThreadPoolExecutor() as pool:
        inference = dataclasses.replace(base.inference, number=slow.port)
        with gateways.running(base, tmp_path, inference=inference) as gateway:
            sent = pool.submit(post, gateway)
            assert received.wait(10)
            assert reload.reload(tmp_path / "run" / "gateway" / "nginx.pid", wait=False)
            answered = sent.result()
    assert (answered.status_code, answered.content) == (200, body)


def test_without_a_front_door(gateway):
    for path in ("/readyz", "/v1/models", "/v2/models/m"):
        answered = requests.get(gateway.url + path, timeout=TIMEOUT)
        assert (answered.status_code, answered.json()["type"]) == (503, "urn:problem-type:fashion-serve:unavailable")
    assert requests.get(gateway.url + "/healthz", timeout=TIMEOUT).json() == {"status": "ok"}


def test_without_torchserve(tmp_path):
    base = settings.read({})
    (unused,) = free_ports.find(1)
    with gateways.running(base, tmp_path, inference=dataclasses.replace(base.inference, number=unused)) as gateway:
        answered = post(gateway)
        assert (answered.status_code, answered.headers["Retry-After"]) == (503, "1")
        assert answered.json()["type"] == "urn:problem-type:fashion-serve:unavailable"


def test_slow_clients_are_disconnected(upstream, tmp_path):
    base = settings.read({})
    inference = dataclasses.replace(base.inference, number=upstream.port)
    timeouts = {"client_header_timeout": "1s", "client_body_timeout": "1s"}
    head = b"POST /predictions/m HTTP/1.1\r\nHost: x\r\n"
    with gateways.running(base, tmp_path, timeouts, inference=inference) as gateway:
        for sent in (head, head + b"Content-Length: 10\r\n\r\nabc", head + b"Transfer-Encoding: chunked\r\n\r\n9\r\na"):
            # Without these timeouts, converse() would time out after ten seconds.
            assert gateway.converse(sent) == b""


@pytest.mark.parametrize("kill", ["kill", "terminate"])
def test_a_dying_worker_loses_no_request(tiny_service, kill):
    url = tiny_service.gateway + "/predictions/tiny"
    stop = threading.Event()

    def send():
        statuses = []
        with requests.Session() as session:
            while not stop.is_set():
                answered = session.post(url, json=[1, 2, 3], timeout=TIMEOUT)
                statuses.append((answered.status_code, answered.text if answered.status_code != 200 else ""))
        return statuses

    with ThreadPoolExecutor() as pool:
        senders = [pool.submit(send) for _ in range(4)]
        try:
            (worker,) = tiny_service.workers()
            getattr(worker, kill)()
            assert wait_until(lambda: [each.pid for each in tiny_service.workers()] not in ([], [worker.pid]), TIMEOUT)
            assert wait_until(
                lambda: requests.get(tiny_service.gateway + "/readyz", timeout=TIMEOUT).status_code == 200, TIMEOUT
            )
        finally:
            stop.set()
        statuses = [status for sender in senders for status in sender.result()]
    assert {status for status, _ in statuses} == {200}, [each for each in statuses if each[0] != 200][:3]
