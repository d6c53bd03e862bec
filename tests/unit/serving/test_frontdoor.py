"""The front door's answers about models and readiness, in front of a stand-in for TorchServe."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading

import aiohttp
import pytest
import requests
from aiohttp import web

from serving import VERSION, settings
from serving.polling import wait_until
from serving.ports import listens
from serving.settings import HOST, ROOT
from serving.sidecars import frontdoor
from serving.sidecars.process import run_until_signal
from serving.sidecars.torchserve import Upstream
from tests.support import free_ports
from tests.support.torchserve_stub import TorchServeStub

ID = "123e4567-e89b-12d3-a456-426614174000"
TIMEOUT = 30


@pytest.fixture(scope="module")
def stub():
    with TorchServeStub() as stub:
        yield stub


@contextlib.contextmanager
def door(stub, max_age):
    """A front door in front of the stand-in, in a thread; yields a function: path → status, content type, JSON."""
    (port,) = free_ports.find(1)
    loop, stop, draining = asyncio.new_event_loop(), asyncio.Event(), asyncio.Event()

    async def serve():
        async with aiohttp.ClientSession() as session:
            upstream = Upstream(session, settings.read(stub.environment))
            application = frontdoor.FrontDoor(upstream, draining).application()
            runner = web.AppRunner(application)
            await runner.setup()
            await web.TCPSite(runner, HOST, port).start()
            await stop.wait()
            await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert wait_until(lambda: listens(HOST, port), TIMEOUT)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(frontdoor, "MAX_AGE_S", max_age)
            yield lambda path: get(f"http://{HOST}:{port}{path}")
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(TIMEOUT)
        loop.close()


def get(url):
    answer = requests.get(url, headers={"X-Request-Id": ID}, timeout=TIMEOUT)
    return answer.status_code, answer.headers["Content-Type"], answer.json()


@pytest.fixture(scope="module")
def uncached(stub):
    with door(stub, max_age=0) as ask:
        yield ask


@pytest.fixture
def ask(stub, uncached):
    """Asks a front door without a cache."""
    stub.reset()
    return uncached


def assert_problem(answer, status, detail):
    assert answer[:2] == (status, "application/problem+json")
    problem = answer[2]
    assert problem["status"] == status
    assert problem["instance"] == f"urn:uuid:{ID}"
    assert detail in problem["detail"]
    assert problem["error"] == problem["detail"]


def test_lists_and_metadata(ask):
    assert ask("/v1/models") == (200, "application/json", {"models": ["fashion", "together"]})
    assert ask("/v2")[2] == {"name": "fashion-serve", "version": VERSION, "extensions": ["binary_tensor_data"]}
    for path in ("/v2/models/fashion", "/v2/models/fashion/versions/2.0"):
        status, _, model = ask(path)
        assert (status, model["name"], model["versions"]) == (200, "fashion", ["1.0", "2.0"])
        assert model["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 28, 28]}]


def test_ready_models(ask):
    for path, key in (("/readyz", "ready"), ("/v2/health/ready", "ready"), ("/v2/health/live", "live")):
        assert ask(path) == (200, "application/json", {key: True})
    for path in ("/v1/models/fashion", "/v2/models/fashion/ready", "/v2/models/fashion/versions/2.0/ready"):
        assert ask(path) == (200, "application/json", {"name": "fashion", "ready": True})


def test_models_that_are_not_ready(ask, stub):
    stub.worker_status = "UNLOADING"
    assert_problem(ask("/readyz"), 503, "not ready: fashion, together")
    assert_problem(ask("/v2/health/ready"), 503, "not ready: fashion, together")
    assert_problem(ask("/v2/models/fashion/ready"), 503, "fashion")
    assert_problem(ask("/v2/models/fashion"), 503, "not ready")
    assert ask("/v1/models/fashion") == (200, "application/json", {"name": "fashion", "ready": False})
    assert ask("/v2/health/live")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/models/nosuch", "/v2/models/nosuch", "/v2/models/nosuch/ready"),
        *("/v2/models/fashion/versions/9.9", "/v2/models/fashion/versions/9.9/ready"),
        "/v2/models/fashion/versions/all",
    ],
)
def test_unknown_models_and_versions(ask, path):
    assert_problem(ask(path), 404, "nosuch" if "nosuch" in path else "fashion")


def test_answers_are_cached_by_path(stub):
    stub.reset()
    with door(stub, max_age=3600) as ask:
        assert ask("/readyz")[0] == 200
        stub.worker_status = "UNLOADING"
        assert ask("/readyz")[0] == 200
        # Another path, whose answer is not in the cache.
        assert ask("/v2/health/ready")[0] == 503
        stub.worker_status = "READY"
        assert ask("/v2/health/ready")[0] == 503


@contextlib.contextmanager
def process(port, upstream):
    environment = {**os.environ, **upstream, "FASHION_FRONTDOOR_PORT": str(port)}
    with subprocess.Popen([sys.executable, "-m", "serving.sidecars.frontdoor"], cwd=ROOT, env=environment) as process:
        assert wait_until(lambda: listens(HOST, port), TIMEOUT)
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0


def test_without_torchserve():
    port, *unused = free_ports.find(3)
    names = ("FASHION_INFERENCE_PORT", "FASHION_MANAGEMENT_PORT")
    with process(port, dict(zip(names, map(str, unused), strict=True))):
        for path in ("/readyz", "/v1/models", "/v2/health/live", "/v2/models/fashion"):
            assert_problem(get(f"http://{HOST}:{port}{path}"), 503, "TorchServe does not answer")


def test_a_service_that_is_stopping_is_not_ready(stub):
    stub.reset()
    (port,) = free_ports.find(1)
    with process(port, stub.environment) as door:
        assert get(f"http://{HOST}:{port}/readyz")[0] == 200
        door.send_signal(signal.SIGUSR1)
        assert wait_until(lambda: get(f"http://{HOST}:{port}/readyz")[0] == 503, TIMEOUT)
        assert_problem(get(f"http://{HOST}:{port}/v2/health/ready"), 503, "the service is stopping")
        # Other requests are still answered.
        assert get(f"http://{HOST}:{port}/v1/models")[0] == 200


def test_a_port_in_use_is_reported(stub, capfd, monkeypatch):
    for name, value in stub.environment.items():
        monkeypatch.setenv(name, value)
    (port,) = free_ports.find(1)
    monkeypatch.setenv("FASHION_FRONTDOOR_PORT", str(port))
    with socket.create_server((HOST, port)):
        assert run_until_signal("frontdoor", frontdoor.serve) == 1
    assert "frontdoor: [Errno" in capfd.readouterr().err
