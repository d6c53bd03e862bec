"""SIGTERM for the service, and the loss of its frontend."""

from __future__ import annotations

import contextlib
import http.client
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

from serving import settings
from serving.polling import wait_until
from serving.settings import HOST
from serving.supervisor import parts
from tests.support import scenes
from tests.support.scenes import RESTART_LIMIT_S, Scene

# From SIGTERM until the end of the service.
STOP_LIMIT_S = 10.0


def test_open_requests_are_answered_after_sigterm(prepared, tmp_path, rate):
    place, archive = prepared
    service = place.begin("start", "--foreground")
    assert service.stdout is not None
    assert any("Try: " in line for line in service.stdout)
    scene = Scene(place, [archive], tmp_path, rate(place, [archive]), 0)
    images = np.zeros((4096, 784), np.uint8)

    def send_bulk(connection: http.client.HTTPConnection) -> int:
        # Takes some tenths of a second, so that the request is open when the signal arrives.
        headers = {"Content-Type": "application/octet-stream"}
        connection.request("POST", f"/predictions/{scenes.MODEL}", images.tobytes(), headers)
        with connection.getresponse() as answer:
            answer.read()
            return answer.status

    load = scene.load(scene.length(60), "--retries", "0")
    load.settle(scenes.REQUESTS / scene.rate + 1 if scenes.FULL else 3)
    with ThreadPoolExecutor(8) as pool, contextlib.ExitStack() as stack:
        port = place.settings.gateway.number
        connections = [http.client.HTTPConnection(HOST, port, timeout=30) for _ in range(8)]
        for connection in connections:
            stack.callback(connection.close)
            connection.connect()
        clients = {connection.sock.getsockname()[1] for connection in connections}
        requests_sent = [pool.submit(send_bulk, connection) for connection in connections]
        assert wait_until(lambda: clients <= _accepted(port), 10)
        signaled = load.event("SIGTERM")
        service.send_signal(signal.SIGTERM)
        statuses = [each.result() for each in requests_sent]
    service.communicate(timeout=60)
    took = time.time() - signaled
    load.event("ended")
    # New connections are refused now. Each call counts that, so stop the load.
    load.stop()
    result = load.result()
    scenes.keep("sigterm", "SIGTERM of the service", result, ended_seconds=round(took, 2), in_flight=statuses)
    assert statuses == [200] * 8
    assert service.returncode == 0
    assert set(result["tries"]) <= {"ok", "unconnected", "broken"}
    # nginx may close a keep-alive connection while the next request is on its way: at most once per connection.
    assert result["tries"].get("broken", 0) <= result["connections"]
    if scenes.FULL:
        assert result["calls"]["ok"] >= scenes.REQUESTS
        assert took <= STOP_LIMIT_S


def _accepted(port: int) -> set[int]:
    """The clients' ports of accepted connections. A connection has no pid before a process accepts it."""
    return {
        connection.raddr.port
        for connection in psutil.net_connections("tcp")
        if connection.raddr and connection.laddr.port == port and connection.pid is not None
    }


@pytest.mark.parametrize(
    ("name", "title", "number", "detection_s"),
    [
        ("frontend-killed", "kill -9 of TorchServe's frontend", signal.SIGKILL, 0.0),
        pytest.param(
            "frontend-hung",
            "TorchServe's frontend hangs (SIGSTOP)",
            signal.SIGSTOP,
            # A liveness request every five seconds, with a timeout of five.
            settings.read({}).hang_timeout + 10,
            marks=pytest.mark.skipif(not scenes.FULL, reason="takes a minute; tests/integration has the short form"),
        ),
    ],
)
def test_lost_frontend_is_restarted_and_no_answer_is_wrong(scene, name, title, number, detection_s):
    load = scene.load(scene.length(24 + 2 * detection_s))
    load.settle()
    frontend = scene.frontend()
    killed = load.event(title)
    frontend.send_signal(number)
    assert wait_until(lambda: scene.place.pid(parts.FRONTEND) != frontend.pid, scenes.PATIENCE)
    assert wait_until(scene.is_ready, 60)
    took = time.time() - killed
    load.event("ready")
    result = load.finish()
    lasted = scenes.seconds_since(result, killed, ["refused", "unconnected", "broken"])
    scenes.keep(
        name,
        title,
        result,
        ready_seconds=round(took, 2),
        failures_until_seconds=round(lasted, 2),
    )
    # A caller may retry all of these.
    assert set(scenes.failed(result)) <= {"refused", "unconnected", "broken"}
    start = int((killed - result["started"]) / result["interval"])
    assert all(set(entry["calls"]) <= {"ok"} for entry in result["series"][:start])
    assert any(entry["calls"].get("ok") for entry in result["series"][-8:])
    if scenes.FULL:
        assert took <= RESTART_LIMIT_S + detection_s
        # Calls that began before the recovery can fail up to four seconds later, after their last try.
        assert lasted <= took + 5
