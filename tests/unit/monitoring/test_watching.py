"""What the front door's page of metrics says, before a scripted TorchServe and nginx."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from handlers.metrics import Recorder
from serving import exposition, watching
from serving.exposition import Family
from serving.gateway_answers import GatewayAnswers
from serving.settings import HOST
from serving.upstream import Upstream
from serving.watching import Watch
from tests import ports
from tests.unit.handlers.signatures import FASHION, VECTOR

# As nginx 1.22 writes it.
STATUS = "Active connections: 3 \nserver accepts handled requests\n 10 9 25 \nReading: 0 Writing: 1 Waiting: 2 \n"


def described(model, version="1.0", ready=1, wanted=1, pending=0):
    return {
        "modelName": model,
        "modelVersion": version,
        "minWorkers": wanted,
        "workers": [{"status": "READY"}] * ready + [{"status": "UNLOADING"}],
        "jobQueueStatus": {"remainingCapacity": 1000 - pending, "pendingRequests": pending},
    }


def page(folder, models=None, status=None):
    """The page's lines without comments; ``None`` stands for what does not answer."""

    answers = GatewayAnswers(folder / "answers.log")

    async def ask():
        (port,) = ports.free(1)
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
                return await Watch(session, Upstream(session, url, url), folder, answers, f"{url}/status").page()
        finally:
            await runner.cleanup()

    return [line for line in asyncio.run(ask()).decode().splitlines() if not line.startswith("#")]


def test_tells_of_workers_and_queues(tmp_path):
    lines = page(tmp_path, [described("m", ready=2, wanted=3, pending=40), described("m", "2.0"), described("n")])
    assert "fashion_torchserve_up 1" in lines
    assert 'fashion_workers_ready{model="m",version="1.0"} 2' in lines
    assert 'fashion_workers_wanted{model="m",version="1.0"} 3' in lines
    assert 'fashion_workers_ready{model="m",version="2.0"} 1' in lines
    assert 'fashion_queue_requests{model="m",version="1.0"} 40' in lines
    assert 'fashion_queue_capacity{model="m",version="1.0"} 1000' in lines
    assert 'fashion_queue_requests{model="n",version="1.0"} 0' in lines


def test_tells_of_nginx(tmp_path):
    lines = page(tmp_path, status=STATUS)
    assert [line for line in lines if line.startswith("nginx")] == [
        "nginx_up 1",
        "nginx_connections_active 3",
        "nginx_connections_reading 0",
        "nginx_connections_writing 1",
        "nginx_connections_waiting 2",
        "nginx_connections_accepted 10",
        "nginx_connections_handled 9",
        "nginx_http_requests_total 25",
    ]


@pytest.mark.parametrize("status", ["built without stub_status\n", "", "Active connections: many"], ids=repr)
def test_tells_that_nginx_runs_without_numbers_of_its_own(tmp_path, status):
    lines = page(tmp_path, status=status)
    assert [line for line in lines if line.startswith("nginx")] == ["nginx_up 1"]


def test_tells_who_does_not_answer(tmp_path):
    lines = page(tmp_path / "missing")
    assert [line for line in lines if not line.startswith("fashion_gateway")] == [
        "fashion_torchserve_up 0",
        "nginx_up 0",
    ]


def test_tells_what_callers_got(tmp_path):
    (tmp_path / "answers.log").write_text("503 0.002\n")
    lines = page(tmp_path)
    assert 'fashion_gateway_requests_total{status="503"} 1' in lines
    assert 'fashion_gateway_seconds_bucket{le="0.0025"} 1' in lines


def test_facts_of_versions_that_are_no_longer_served_are_left_out(tmp_path):
    Recorder(tmp_path, FASHION)
    Recorder(tmp_path, VECTOR)
    lines = page(tmp_path, [described("fashion")])
    assert 'fashion_model_info{model="fashion",version="1.0",kind="image"} 1' in lines
    assert not [line for line in lines if line.startswith("fashion_model_info") and "blobs" in line]
    assert 'fashion_examples_total{model="blobs",version="1.0"} 0' in lines
    # While TorchServe does not tell what it serves, all is shown.
    assert 'fashion_model_info{model="blobs",version="1.0",kind="vector"} 1' in page(tmp_path)


def test_the_text_format():
    family = Family("name", "gauge", "What it is.")
    family.add(0.25, label='a "b"\\\n')
    family.add(float("inf"))
    family.add(float("-inf"))
    family.add(float("nan"))
    family.add(1e21)
    family.add(3.0)
    assert exposition.render([family, Family("empty", "counter", "Nothing.")]).decode().splitlines() == [
        "# HELP name What it is.",
        "# TYPE name gauge",
        r'name{label="a \"b\"\\\n"} 0.25',
        "name +Inf",
        "name -Inf",
        "name NaN",
        "name 1000000000000000000000",
        "name 3",
    ]


def test_a_scrape_waits_for_no_hanging_torchserve(tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "_TIMEOUT", 0.05)

    async def never():
        await asyncio.Event().wait()

    class Hanging:
        described = staticmethod(never)

    async def ask():
        async with aiohttp.ClientSession() as session:
            return await Watch(
                session, Hanging(), tmp_path, GatewayAnswers(tmp_path / "answers.log"), f"http://{HOST}:9/status"
            ).page()

    assert b"fashion_torchserve_up 0" in asyncio.run(ask())
