"""The front door's metrics page, in front of a scripted TorchServe and nginx."""

from __future__ import annotations

import asyncio
import dataclasses
import time

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
from serving.sidecars.metrics.page import MetricsPage
from serving.sidecars.torchserve import Upstream
from tests.support import free_ports, metrics_page
from tests.support.signatures import FASHION, VECTOR

# As written by nginx 1.22.
STATUS = "Active connections: 3 \nserver accepts handled requests\n 10 9 25 \nReading: 0 Writing: 1 Waiting: 2 \n"
# As sent by Prometheus 2.42.
OPENMETRICS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,*/*;q=0.1"


def description(model, version="1.0", ready=1, minimum=1, pending=0):
    worker = {"id": "9000", "pid": 1, "gpu": False}
    return {
        "modelName": model,
        "modelVersion": version,
        "modelUrl": f"{model}.mar",
        "batchSize": 1,
        "maxBatchDelay": 1,
        "minWorkers": minimum,
        "workers": [{**worker, "status": "READY"}] * ready + [{**worker, "status": "UNLOADING"}],
        "jobQueueStatus": {"remainingCapacity": 1000 - pending, "pendingRequests": pending},
    }


def scrape(folder, models=None, status=None, accept=""):
    """The answer to a scrape; a source that is ``None`` does not answer."""
    answers = GatewayAnswers(folder / "answers.log")

    async def ask():
        (port,) = free_ports.find(1)
        application = web.Application()
        if models is not None:
            names = {model["modelName"] for model in models}

            async def list_models(_):
                return web.json_response({"models": [{"modelName": name} for name in sorted(names)]})

            async def describe(request):
                name = request.match_info["name"]
                return web.json_response([model for model in models if model["modelName"] == name])

            application.router.add_get("/models", list_models)
            application.router.add_get("/models/{name}/all", describe)
        if status is not None:

            async def nginx_status(_):
                return web.Response(text=status)

            application.router.add_get("/status", nginx_status)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, HOST, port).start()
        try:
            async with aiohttp.ClientSession() as session:
                url = f"http://{HOST}:{port}"
                upstream = Upstream(session, settings.read({"FASHION_MANAGEMENT_PORT": str(port)}))
                metrics = MetricsPage(session, upstream, folder, answers, f"{url}/status")
                return await metrics.answer(make_mocked_request("GET", "/metrics", {"Accept": accept}))
        finally:
            await runner.cleanup()

    return asyncio.run(ask())


def page(folder, models=None, status=None):
    """Every sample of the page."""
    return metrics_page.samples(scrape(folder, models, status).body.decode())


def of_nginx(samples):
    return {name: value for (name, *_), value in samples.items() if name.startswith("nginx")}


def test_has_metrics_of_workers_and_queues(tmp_path):
    samples = page(
        tmp_path, [description("m", ready=2, minimum=3, pending=40), description("m", "2.0"), description("n")]
    )
    assert samples["fashion_torchserve_up",] == 1
    assert samples["fashion_workers_ready", "m", "1.0"] == 2
    assert samples["fashion_workers_wanted", "m", "1.0"] == 3
    assert samples["fashion_workers_ready", "m", "2.0"] == 1
    assert samples["fashion_queue_requests", "m", "1.0"] == 40
    assert samples["fashion_queue_capacity", "m", "1.0"] == 1000
    assert samples["fashion_queue_requests", "n", "1.0"] == 0


class SteadyLoad:
    """One request in work for all the time."""

    def busy_seconds(self):
        return time.monotonic()

    def request_seconds(self):
        return time.monotonic() - BEGAN


BEGAN = time.monotonic()


def test_requests_in_work_are_those_of_all_workers_and_of_the_queue(tmp_path):
    recorders = [Recorder(tmp_path, VECTOR, SteadyLoad()) for _ in range(2)]
    for recorder in recorders:
        # The first flush after the start counts from 0.
        for _ in range(25):
            recorder.flush()
            time.sleep(0.001)
    samples = page(tmp_path, [description("blobs", pending=40)])
    assert samples["fashion_requests_in_work", "blobs", "1.0"] == pytest.approx(42, abs=0.1)
    # No longer served.
    assert ("fashion_requests_in_work", "blobs", "1.0") not in page(tmp_path, [description("m")])


def test_has_metrics_of_nginx(tmp_path):
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
def test_nginx_is_up_without_stub_status(tmp_path, status):
    assert of_nginx(page(tmp_path, status=status)) == {"nginx_up": 1}


def test_sources_that_do_not_answer_are_down(tmp_path):
    samples = page(tmp_path / "missing")
    assert {name: value for (name, *_), value in samples.items() if not name.startswith("fashion_gateway")} == {
        "fashion_torchserve_up": 0,
        "nginx_up": 0,
    }


def test_has_metrics_of_the_gateways_answers(tmp_path):
    (tmp_path / "answers.log").write_text("503 0.002\n")
    samples = page(tmp_path)
    assert samples["fashion_gateway_requests_total", "503"] == 1
    assert samples["fashion_gateway_seconds_bucket", "0.0025"] == 1


def test_gauges_of_versions_that_are_no_longer_served_are_left_out(tmp_path):
    Recorder(tmp_path, FASHION)
    Recorder(tmp_path, VECTOR)
    samples = page(tmp_path, [description("fashion")])
    assert samples["fashion_model_info", "fashion", "1.0", "image"] == 1
    assert not [key for key in samples if key[0] == "fashion_model_info" and "blobs" in key]
    assert samples["fashion_examples_total", "blobs", "1.0"] == 0
    # While TorchServe does not answer, no gauge is left out.
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
    answer = scrape(tmp_path, [description("fashion")], STATUS, accept)
    assert answer.headers["Content-Type"].startswith(content_type)
    # The OpenMetrics parser checks counters' names, bounds and the order of samples.
    kinds = {family.name: family.type for family in parse(answer.body.decode())}
    assert kinds["nginx_connections_accepted"] == "unknown"
    del kinds["nginx_connections_accepted"], kinds["nginx_connections_handled"]
    assert {name for name, kind in kinds.items() if kind == "counter"} == {
        "fashion_requests",
        "fashion_fast_path",
        "fashion_rejected",
        "fashion_examples",
        "fashion_executions",
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


def test_has_no_metrics_of_the_front_doors_own_process(tmp_path):
    assert {name.partition("_")[0] for name, *_ in page(tmp_path, [], STATUS)} == {"fashion", "nginx"}


def test_a_scrape_does_not_wait_for_a_hanging_torchserve(tmp_path, monkeypatch):
    monkeypatch.setattr(served_page, "_SOURCE_TIMEOUT_S", 0.05)

    async def never(_):
        await asyncio.Event().wait()

    async def ask():
        async with aiohttp.ClientSession() as session:
            upstream = Upstream(session, settings.read({}))
            monkeypatch.setattr(upstream, "call_management", never)
            answers = GatewayAnswers(tmp_path / "answers.log")
            metrics = MetricsPage(session, upstream, tmp_path, answers, f"http://{HOST}:9/status")
            return {metric.name: metric.samples for metric in await metrics.metrics()}

    assert [sample.value for sample in asyncio.run(ask())["fashion_torchserve_up"]] == [0]
