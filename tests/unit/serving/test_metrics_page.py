"""The front door's page of metrics, with a scripted TorchServe and nginx behind it."""

from __future__ import annotations

import asyncio
import dataclasses

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from handlers.metrics.recorder import Recorder
from serving import settings
from serving.settings import HOST
from serving.sidecars.metrics import page as served_page
from serving.sidecars.metrics.gateway import GatewayAnswers
from serving.sidecars.metrics.page import Watch
from serving.sidecars.torchserve import Upstream
from tests.support import free_ports, metrics_page
from tests.support.signatures import FASHION, VECTOR

# As nginx 1.22 writes it.
STATUS = "Active connections: 3 \nserver accepts handled requests\n 10 9 25 \nReading: 0 Writing: 1 Waiting: 2 \n"
# What Prometheus 2.42 asks for.
OPENMETRICS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,*/*;q=0.1"


def described(model, version="1.0", ready=1, wanted=1, pending=0):
    worker = {"id": "9000", "pid": 1, "gpu": False}
    return {
        "modelName": model,
        "modelVersion": version,
        "modelUrl": f"{model}.mar",
        "batchSize": 1,
        "maxBatchDelay": 1,
        "minWorkers": wanted,
        "workers": [{**worker, "status": "READY"}] * ready + [{**worker, "status": "UNLOADING"}],
        "jobQueueStatus": {"remainingCapacity": 1000 - pending, "pendingRequests": pending},
    }


def answered(folder, models=None, status=None, accept=""):
    """The answer to a scrape; ``None`` stands for what does not answer."""

    answers = GatewayAnswers(folder / "answers.log")

    async def ask():
        (port,) = free_ports.find(1)
        application = web.Application()
        if models is not None:
            names = {model["modelName"] for model in models}

            async def listed(_):
                return web.json_response({"models": [{"modelName": name} for name in sorted(names)]})

            async def told(request):
                name = request.match_info["name"]
                return web.json_response([model for model in models if model["modelName"] == name])

            application.router.add_get("/models", listed)
            application.router.add_get("/models/{name}/all", told)
        if status is not None:

            async def told_by_nginx(_):
                return web.Response(text=status)

            application.router.add_get("/status", told_by_nginx)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, HOST, port).start()
        try:
            async with aiohttp.ClientSession() as session:
                url = f"http://{HOST}:{port}"
                upstream = Upstream(session, settings.read({"FASHION_MANAGEMENT_PORT": str(port)}))
                watch = Watch(session, upstream, folder, answers, f"{url}/status")
                return await watch.answer(make_mocked_request("GET", "/metrics", {"Accept": accept}))
        finally:
            await runner.cleanup()

    return asyncio.run(ask())


def page(folder, models=None, status=None):
    """Every sample of the page."""
    return metrics_page.samples(answered(folder, models, status).body.decode())


def of_nginx(found):
    return {name: value for (name, *_), value in found.items() if name.startswith("nginx")}


def test_tells_of_workers_and_queues(tmp_path):
    found = page(tmp_path, [described("m", ready=2, wanted=3, pending=40), described("m", "2.0"), described("n")])
    assert found["fashion_torchserve_up",] == 1
    assert found["fashion_workers_ready", "m", "1.0"] == 2
    assert found["fashion_workers_wanted", "m", "1.0"] == 3
    assert found["fashion_workers_ready", "m", "2.0"] == 1
    assert found["fashion_queue_requests", "m", "1.0"] == 40
    assert found["fashion_queue_capacity", "m", "1.0"] == 1000
    assert found["fashion_queue_requests", "n", "1.0"] == 0


def test_tells_of_nginx(tmp_path):
    assert of_nginx(page(tmp_path, status=STATUS)) == {
        "nginx_up": 1,
        "nginx_connections_active": 3,
        "nginx_connections_reading": 0,
        "nginx_connections_writing": 1,
        "nginx_connections_waiting": 2,
        "nginx_connections_accepted": 10,
        "nginx_connections_handled": 9,
        "nginx_http_requests_total": 25,
    }


@pytest.mark.parametrize("status", ["built without stub_status\n", "", "Active connections: many"], ids=repr)
def test_tells_that_nginx_runs_without_numbers_of_its_own(tmp_path, status):
    assert of_nginx(page(tmp_path, status=status)) == {"nginx_up": 1}


def test_tells_who_does_not_answer(tmp_path):
    found = page(tmp_path / "missing")
    assert {name: value for (name, *_), value in found.items() if not name.startswith("fashion_gateway")} == {
        "fashion_torchserve_up": 0,
        "nginx_up": 0,
    }


def test_tells_what_callers_got(tmp_path):
    (tmp_path / "answers.log").write_text("503 0.002\n")
    found = page(tmp_path)
    assert found["fashion_gateway_requests_total", "503"] == 1
    assert found["fashion_gateway_seconds_bucket", "0.0025"] == 1


def test_facts_of_versions_that_are_no_longer_served_are_left_out(tmp_path):
    Recorder(tmp_path, FASHION)
    Recorder(tmp_path, VECTOR)
    found = page(tmp_path, [described("fashion")])
    assert found["fashion_model_info", "fashion", "1.0", "image"] == 1
    assert not [key for key in found if key[0] == "fashion_model_info" and "blobs" in key]
    assert found["fashion_examples_total", "blobs", "1.0"] == 0
    # While TorchServe does not tell what it serves, all is shown.
    assert page(tmp_path)["fashion_model_info", "blobs", "1.0", "vector"] == 1


@pytest.mark.parametrize(
    ("accept", "content_type", "parse"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8", parse_text),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", parse_text),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8", parse_openmetrics),
    ],
    ids=["no Accept", "anything", "Prometheus"],
)
def test_the_accept_header_picks_the_format(tmp_path, accept, content_type, parse):
    Recorder(tmp_path, dataclasses.replace(FASHION, scored={"test_accuracy": 0.9}))
    answer = answered(tmp_path, [described("fashion")], STATUS, accept)
    assert answer.headers["Content-Type"].startswith(content_type)
    # The OpenMetrics parser is strict: about counters' names, bounds, the order of samples.
    kinds = {family.name: family.type for family in parse(answer.body.decode())}
    assert kinds["nginx_connections_accepted"] == "unknown"
    del kinds["nginx_connections_accepted"], kinds["nginx_connections_handled"]
    assert {name for name, kind in kinds.items() if kind == "counter"} == {
        "fashion_requests",
        "fashion_fast_path",
        "fashion_rejected",
        "fashion_examples",
        "fashion_predictions",
        "fashion_gateway_requests",
        "nginx_http_requests",
    }
    assert {name for name, kind in kinds.items() if kind == "histogram"} == {
        "fashion_stage_seconds",
        "fashion_handler_seconds",
        "fashion_batch_requests",
        "fashion_confidence",
        "fashion_gateway_seconds",
    }
    assert set(kinds.values()) == {"counter", "histogram", "gauge"}


def test_shows_nothing_of_the_front_doors_own_process(tmp_path):
    assert {name.partition("_")[0] for name, *_ in page(tmp_path, [], STATUS)} == {"fashion", "nginx"}


def test_a_scrape_waits_for_no_hanging_torchserve(tmp_path, monkeypatch):
    monkeypatch.setattr(served_page, "_TIMEOUT", 0.05)

    async def never(_):
        await asyncio.Event().wait()

    class Hanging:
        managed = staticmethod(never)

    async def ask():
        async with aiohttp.ClientSession() as session:
            answers = GatewayAnswers(tmp_path / "answers.log")
            watch = Watch(session, Hanging(), tmp_path, answers, f"http://{HOST}:9/status")
            return {metric.name: metric.samples for metric in await watch.metrics()}

    assert [sample.value for sample in asyncio.run(ask())["fashion_torchserve_up"]] == [0]
