"""The service is told to end, or loses its frontend."""

from __future__ import annotations

import contextlib
import http.client
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import requests

from serving import settings
from serving.polling import wait_until
from serving.settings import HOST
from serving.supervisor import parts
from tests.support import scenes
from tests.support.scenes import Scene

# Seconds: from the kill of a frontend until it is ready again, and from SIGTERM to the end.
REVIVED = 10.0
ENDED = 10.0


def test_sigterm_answers_what_is_in_flight(prepared, tmp_path, rate):
    place, archive = prepared
    service = place.begin("start", "--foreground")
    assert service.stdout is not None
    assert any("Try: " in line for line in service.stdout)
    scene = Scene(place, [archive], tmp_path, rate(place, [archive]), 0)
    images = np.zeros((4096, 784), np.uint8)

    def ask_much(connection: http.client.HTTPConnection) -> int:
        # Takes some tenths of a second, so that it is in flight when the signal comes.
        headers = {"Content-Type": "application/octet-stream"}
        connection.request("POST", f"/predictions/{scenes.MODEL}", images.tobytes(), headers)
        with connection.getresponse() as answer:
            answer.read()
            return answer.status

    load = scene.load(scene.long_enough(short=60, full=60), "--retries", "0")
    load.settle(scenes.REQUESTS / scene.rate + 1 if scenes.FULL else 3)
    with ThreadPoolExecutor(8) as pool, contextlib.ExitStack() as stack:
        port = place.settings.gateway.number
        connections = [http.client.HTTPConnection(HOST, port, timeout=30) for _ in range(8)]
        for connection in connections:
            stack.callback(connection.close)
            connection.connect()
        clients = {connection.sock.getsockname()[1] for connection in connections}
        asked = [pool.submit(ask_much, connection) for connection in connections]
        assert wait_until(lambda: clients <= _accepted(port), 10)
        told = load.event("SIGTERM")
        service.send_signal(signal.SIGTERM)
        answered = [each.result() for each in asked]
    service.communicate(timeout=60)
    took = time.time() - told
    load.event("ended")
    # New connections are refused by now, which every call counts until the load is stopped.
    load.stop()
    result = load.result()
    scenes.keep("sigterm", "SIGTERM of the service", result, ended_seconds=round(took, 2), in_flight=answered)
    assert answered == [200] * 8
    assert service.returncode == 0
    assert set(result["tries"]) <= {"ok", "unconnected", "broken"}
    # A keep-alive connection that nginx ends while the next request is on its way: one for each connection at most.
    assert result["tries"].get("broken", 0) <= result["connections"]
    if scenes.FULL:
        assert result["calls"]["ok"] >= scenes.REQUESTS
        assert took <= ENDED


def _accepted(port: int) -> set[int]:
    """The clients' ports of the connections that a process has accepted; until then none owns them."""
    return {
        connection.raddr.port
        for connection in psutil.net_connections("tcp")
        if connection.raddr and connection.laddr.port == port and connection.pid is not None
    }


@pytest.mark.parametrize(
    ("name", "title", "number", "notices"),
    [
        ("frontend-killed", "kill -9 of TorchServe's frontend", signal.SIGKILL, 0.0),
        pytest.param(
            "frontend-hung",
            "TorchServe's frontend hangs (SIGSTOP)",
            signal.SIGSTOP,
            # It asks every five seconds, and waits as long.
            settings.read({}).hang_timeout + 10,
            marks=pytest.mark.skipif(not scenes.FULL, reason="takes a minute; tests/integration has the short form"),
        ),
    ],
)
def test_lost_frontend_is_back_and_no_answer_is_wrong(scene, name, title, number, notices):
    load = scene.load(scene.long_enough(short=14, full=24 + 2 * notices))
    load.settle()
    frontend = scene.frontend()
    killed = load.event(title)
    frontend.send_signal(number)
    assert wait_until(lambda: scene.place.pid(parts.FRONTEND) != frontend.pid, scenes.PATIENCE)
    assert wait_until(lambda: requests.get(scene.place.gateway + "/readyz", timeout=5).status_code == 200, 60)
    took = time.time() - killed
    load.event("ready")
    result = load.result()
    lasted = scenes.seconds_since(result, killed, ["refused", "unconnected", "broken"])
    scenes.keep(
        name,
        title,
        result,
        ready_seconds=round(took, 2),
        failures_until_seconds=round(lasted, 2),
    )
    # All that may fail is what a caller may try again.
    assert set(scenes.failed(result)) <= {"refused", "unconnected", "broken"}
    start = int((killed - result["started"]) / result["interval"])
    assert all(set(entry["calls"]) <= {"ok"} for entry in result["series"][:start])
    assert any(entry["calls"].get("ok") for entry in result["series"][-8:])
    if scenes.FULL:
        assert took <= REVIVED + notices
        # Calls that began within the window may be given up after their last try, four seconds later.
        assert lasted <= took + 5
