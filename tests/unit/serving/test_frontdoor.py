"""The front door's answers about models and readiness, in front of a stand-in for TorchServe."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading

import aiohttp
import numpy as np
import pytest
import requests
from aiohttp import web

from handlers import limits, problems
from handlers.metrics.recorder import Batch, Recorder
from serving import VERSION, settings
from serving.polling import wait_until
from serving.ports import listens
from serving.settings import HOST, ROOT
from serving.sidecars import frontdoor, triton
from serving.sidecars.process import run_until_signal
from serving.sidecars.torchserve import Upstream
from serving.sidecars.triton import Extensions
from tests.support import free_ports
from tests.support.signatures import FASHION
from tests.support.torchserve_stub import TorchServeStub

ID = "123e4567-e89b-12d3-a456-426614174000"
TIMEOUT = 30


@pytest.fixture(scope="module")
def stub():
    with TorchServeStub() as stub:
        yield stub


@contextlib.contextmanager
def door(stub, max_age, counts):
    """A front door in front of the stand-in, in a thread; yields a function: path → status, content type, JSON.

    The function's argument ``body`` makes it a POST.
    """
    (port,) = free_ports.find(1)
    loop, stop, draining = asyncio.new_event_loop(), asyncio.Event(), asyncio.Event()

    async def serve():
        async with aiohttp.ClientSession() as session:
            upstream = Upstream(session, settings.read(stub.environment))
            application = frontdoor.FrontDoor(upstream, Extensions(upstream, counts), draining).application()
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
            patch.setattr(triton, "MAX_AGE_S", max_age)
            yield lambda path, body=None: get(f"http://{HOST}:{port}{path}", body)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(TIMEOUT)
        loop.close()


def get(url, body=None):
    method = "GET" if body is None else "POST"
    answer = requests.request(method, url, data=body, headers={"X-Request-Id": ID}, timeout=TIMEOUT)
    return answer.status_code, answer.headers["Content-Type"], answer.json()


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """The folder of the workers' counts."""
    return tmp_path_factory.mktemp("counts")


@pytest.fixture(scope="module")
def uncached(stub, counts):
    with door(stub, max_age=0, counts=counts) as ask:
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
    assert ask("/v2")[2] == {"name": "fashion-serve", "version": VERSION, "extensions": list(triton.NAMES)}
    for path in ("/v2/models/fashion", "/v2/models/fashion/versions/2.0"):
        status, _, model = ask(path)
        assert (status, model["name"], model["versions"]) == (200, "fashion", ["1.0", "2.0"])
        assert model["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 28, 28]}]


def test_the_configuration_in_tritons_form(ask):
    for path in ("/v2/models/fashion/config", "/v2/models/fashion/versions/2.0/config"):
        status, _, config = ask(path)
        assert (status, config) == (
            200,
            {
                "name": "fashion",
                "platform": "pytorch_torchscript",
                "max_batch_size": limits.EXAMPLES,
                "input": [{"name": "image", "data_type": "TYPE_UINT8", "dims": [28, 28]}],
                "output": [
                    {"name": "probabilities", "data_type": "TYPE_FP32", "dims": [3]},
                    {"name": "class", "data_type": "TYPE_INT64", "dims": [1], "reshape": {"shape": []}},
                    {"name": "label", "data_type": "TYPE_STRING", "dims": [1], "reshape": {"shape": []}},
                ],
                "instance_group": [{"name": "fashion", "count": 1, "kind": "KIND_CPU"}],
                "dynamic_batching": {},
            },
        )


def test_statistics_add_up_what_the_workers_counted(ask, counts):
    refused: list[tuple[str, type[problems.Problem]]] = [("image/png", problems.Malformed)]
    for version, requests_ in (("1.0", 2), ("2.0", 4)):
        recorder = Recorder(counts, dataclasses.replace(FASHION, version=version))
        probabilities = np.full((3 * requests_, 10), 0.1, np.float32)
        recorder.add(Batch(["image/png"] * requests_, refused, (0.001, 0.002, 0.003), probabilities))
        recorder.add(Batch([], refused))
        recorder.flush()

    def entry(version, requests_, executions):
        def times(milliseconds):
            return {"count": requests_, "ns": requests_ * milliseconds * 1_000_000}

        nothing = {"count": 0, "ns": 0}
        compute = {"compute_input": times(1), "compute_infer": times(2), "compute_output": times(3)}
        fail = {"count": 2 * executions, "ns": 0}
        cache = {"cache_hit": nothing, "cache_miss": nothing}
        stats = {"success": times(6), "fail": fail, "queue": times(0), **compute, **cache}
        count = {"inference_count": 3 * requests_, "execution_count": executions}
        return {"name": "fashion", "version": version, **count, "inference_stats": stats}

    first, second = entry("1.0", 2, 1), entry("2.0", 4, 1)
    # perf_analyzer looks for integers.
    assert ask("/v2/models/fashion/stats")[2] == {
        "model_stats": [first, second, {**first, "version": "1"}, {**second, "version": "2"}]
    }
    assert ask("/v2/models/fashion/versions/2.0/stats")[2] == {"model_stats": [second, {**second, "version": "2"}]}
    both = ask("/v2/models/stats")[2]["model_stats"]
    assert [(each["name"], each["version"]) for each in both] == [
        *(("fashion", "1.0"), ("fashion", "2.0"), ("together", "1.0"), ("together", "2.0"))
    ]
    assert both[:2] == [first, second]
    assert both[2]["inference_count"] == both[2]["inference_stats"]["success"]["count"] == 0


def test_the_repository_index_lists_all_or_ready_versions(ask, stub):
    versions = [{"name": name, "version": version} for name in ("fashion", "together") for version in ("1.0", "2.0")]
    ready = [{**version, "state": "READY", "reason": ""} for version in versions]
    for body in ("", "{}", '{"ready": false}', '{"ready": true}'):
        assert ask("/v2/repository/index", body) == (200, "application/json", ready)
    stub.worker_status = "UNLOADING"
    reason = "0 of 1 workers are ready"
    waiting = [{**version, "state": "UNAVAILABLE", "reason": reason} for version in versions]
    assert ask("/v2/repository/index", "")[2] == waiting
    assert ask("/v2/repository/index", '{"ready": true}')[2] == []


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [("{", 400, "JSON"), ("[]", 400, "JSON"), ('{"ready": 1}', 400, "got 1"), (" " * 2**21, 413, "too large")],
    ids=["not JSON", "a list", "a number", "too large"],
)
def test_a_bad_index_request_is_refused(ask, body, status, detail):
    assert_problem(ask("/v2/repository/index", body), status, detail)


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
        *("/v2/models/nosuch/config", "/v2/models/nosuch/stats", "/v2/models/fashion/versions/9.9/stats"),
        "/v2/models/fashion/versions/all",
    ],
)
def test_unknown_models_and_versions(ask, path):
    assert_problem(ask(path), 404, "nosuch" if "nosuch" in path else "fashion")


def test_answers_are_cached_by_path(stub, counts):
    stub.reset()
    with door(stub, max_age=3600, counts=counts) as ask:
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
