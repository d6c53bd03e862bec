"""The front door: an HTTP server for the lists, metadata, readiness and statistics of models, and for metrics.

    python -m serving.sidecars.frontdoor

    /readyz, /v2/health/ready                          the default version of every model accepts requests
    /ping                                              the same, in the form of TorchServe's own
    /v2/health/live                                    TorchServe's frontend answers
    /v2                                                name, version and extensions of the server
    /v1/models                                         {"models": [names]}
    /v1/models/{model}[/versions/{version}]            {"name", "ready"}
    /v2/models/{model}[/versions/{version}]            the Open Inference Protocol's metadata, by the handler
    /v2/models/{model}[/versions/{version}]/ready      {"name", "ready"}
    /v2/models/{model}[/versions/{version}]/config     Triton's model configuration
    /v2/models[/{model}[/versions/{version}]]/stats    Triton's statistics
    POST /v2/repository/index                          Triton's list of all versions
    /metrics                                           for Prometheus; not a public path of the gateway

A model that is not ready is 503, and an unknown model 404, both ``application/problem+json``. All but the last three
are cached for a second, so that probes cost TorchServe almost nothing. Statistics and index share a list of versions
(``triton.MAX_AGE_S``). Only the gateway calls this server, and it checks the paths.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from reprlib import repr as brief
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from handlers import problems
from serving import NAME, VERSION
from serving.errors import CallError
from serving.gateway import config
from serving.settings import Settings
from serving.sidecars import triton
from serving.sidecars.metrics.gateway import GatewayAnswers
from serving.sidecars.metrics.page import MetricsPage
from serving.sidecars.process import run_until_signal
from serving.sidecars.torchserve import Upstream
from serving.sidecars.triton import Extensions
from serving.torchserve.management import Management

logger = logging.getLogger("serving.sidecars.frontdoor")

# Short enough that readiness is current, and long enough that frequent probes become one call of TorchServe a second.
MAX_AGE_S = 1.0
# The paths contain names that callers choose, so the cache needs a limit.
_MAX_CACHED_ANSWERS = 1000
# For requests in flight at a stop. They take milliseconds, unless TorchServe hangs.
_SHUTDOWN_TIMEOUT_S = 2.0

Route = Callable[[web.Request], Awaitable[Any]]


class NotFound(problems.Problem):
    """There is no such model or version."""

    status = 404
    title = "Not found"
    type = problems.TYPE_PREFIX + "not-found"


# The status of a ``CallError`` → its problem; any other is ``problems.Unavailable``.
_PROBLEMS = {400: problems.Malformed, 404: NotFound, 413: problems.TooLarge}


class FrontDoor:
    """The routes above, for one TorchServe.

    Args:
        upstream: TorchServe's APIs.
        extensions: Triton's extensions.
        draining: once it is set, the service is not ready.
    """

    def __init__(self, upstream: Upstream, extensions: Extensions, draining: asyncio.Event) -> None:
        self._upstream = upstream
        self._extensions = extensions
        self._draining = draining
        self._answers: dict[str, tuple[float, asyncio.Task[bytes]]] = {}

    def application(self) -> web.Application:
        """The web application."""
        routes: dict[str, Route] = {
            "/readyz": self._ready,
            "/v2/health/ready": self._ready,
            "/ping": self._ping,
            "/v2/health/live": self._live,
            "/v2": self._server,
            "/v1/models": self._models,
            "/v1/models/{model}": self._model_v1,
            "/v1/models/{model}/versions/{version}": self._model_v1,
            "/v2/models/{model}": self._metadata,
            "/v2/models/{model}/versions/{version}": self._metadata,
            "/v2/models/{model}/ready": self._model_ready,
            "/v2/models/{model}/versions/{version}/ready": self._model_ready,
            "/v2/models/{model}/config": self._config,
            "/v2/models/{model}/versions/{version}/config": self._config,
        }
        application = web.Application()
        # Only the list of versions is cached, because clients compare the counts before and after their requests.
        for path in ("", "/{model}", "/{model}/versions/{version}"):
            application.router.add_get(f"/v2/models{path}/stats", self._handler(self._statistics, cached=False))
        # Not cached, because its answer depends on the body.
        application.router.add_post("/v2/repository/index", self._handler(self._index, cached=False))
        for path, route in routes.items():
            application.router.add_get(path, self._handler(route))
        return application

    async def _ready(self, _request: web.Request) -> Any:
        if waiting := await self._upstream.call_management(Management.waiting):
            raise CallError(503, f"not ready: {', '.join(waiting)}")
        return {"ready": True}

    async def _ping(self, request: web.Request) -> Any:
        await self._ready(request)
        return {"status": "Healthy"}

    async def _live(self, _request: web.Request) -> Any:
        if not await self._upstream.live():
            raise CallError(503, "TorchServe does not answer")
        return {"live": True}

    async def _server(self, _request: web.Request) -> Any:
        return {"name": NAME, "version": VERSION, "extensions": triton.NAMES}

    async def _models(self, _request: web.Request) -> Any:
        return {"models": await self._upstream.call_management(Management.names)}

    async def _model_v1(self, request: web.Request) -> Any:
        name, version = request.match_info["model"], request.match_info.get("version", "")
        return {"name": name, "ready": await self._upstream.model_ready(name, version)}

    async def _model_ready(self, request: web.Request) -> Any:
        name, version = request.match_info["model"], request.match_info.get("version", "")
        if not await self._upstream.model_ready(name, version):
            raise CallError(503, f"model {name} has workers that are not ready")
        return {"name": name, "ready": True}

    async def _metadata(self, request: web.Request) -> Any:
        return await self._upstream.metadata(request.match_info["model"], request.match_info.get("version", ""))

    async def _config(self, request: web.Request) -> Any:
        return await self._extensions.config(request.match_info["model"], request.match_info.get("version", ""))

    async def _statistics(self, request: web.Request) -> Any:
        names = request.match_info
        return await self._extensions.statistics(names.get("model", ""), names.get("version", ""))

    async def _index(self, request: web.Request) -> Any:
        try:
            body = await request.read()
            ready = orjson.loads(body).get("ready", False) if body else False
        except web.HTTPRequestEntityTooLarge:
            raise CallError(413, 'the body of an index request is too large; send nothing or {"ready": true}') from None
        except (ValueError, AttributeError):
            raise CallError(400, 'the body must be empty or a JSON object such as {"ready": true}') from None
        if type(ready) is not bool:
            raise CallError(400, f"ready must be true or false, got {brief(ready)}")
        return await self._extensions.index(ready)

    def _handler(self, route: Route, cached: bool = True) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                if self._draining.is_set() and route in (self._ready, self._ping):
                    raise CallError(503, "the service is stopping")
                # Shielded, because a caller that disconnects must not cancel the task that others wait for.
                computed = asyncio.shield(self._cached(request, route)) if cached else _computed(request, route)
                body = await computed
                return web.Response(body=body, content_type="application/json")
            except CallError as error:
                problem = _PROBLEMS.get(error.status, problems.Unavailable)(error.detail)
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                logger.warning("TorchServe cannot be reached: %s", error)
                problem = problems.Unavailable("TorchServe does not answer")
            return web.Response(
                status=problem.status,
                body=problem.body(request.headers.get("X-Request-Id", "")),
                content_type=problems.CONTENT_TYPE,
            )

        return answer

    def _cached(self, request: web.Request, route: Route) -> asyncio.Task[bytes]:
        """The answer for the request's path, from the cache if it is younger than ``MAX_AGE_S``.

        Requests that arrive while an answer is computed share it.
        """
        now = time.monotonic()
        started, task = self._answers.get(request.path, (0.0, None))
        if task is None or now - started >= MAX_AGE_S:
            if len(self._answers) >= _MAX_CACHED_ANSWERS:
                self._answers.clear()
            task = asyncio.create_task(_computed(request, route))
            self._answers[request.path] = now, task
        return task


async def _computed(request: web.Request, route: Route) -> bytes:
    return orjson.dumps(await route(request))


async def serve(settings: Settings, draining: asyncio.Event, stop: asyncio.Event) -> None:
    """Answer until ``stop`` is set.

    Args:
        settings: of the service.
        draining: once it is set, the service is not ready.
        stop: once it is set, the front door ends.

    Raises:
        OSError: the server cannot listen on its address.
    """
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        upstream = Upstream(session, settings)
        application = FrontDoor(upstream, Extensions(upstream, settings.counts), draining).application()
        answers = GatewayAnswers(config.answers_log(settings))
        loops = [answers.run]
        traces = None
        if settings.otlp_endpoint:
            # Imported here because OpenTelemetry costs time and memory that a service without traces saves.
            from serving.sidecars.traces import Traces

            traces = Traces(settings.traces, settings.otlp_endpoint)
            loops.append(traces.run)
        status_url = f"{settings.gateway_status.url}/status"
        page = MetricsPage(session, upstream, settings.counts, answers, status_url, traces)
        application.router.add_get("/metrics", page.answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.frontdoor.host, settings.frontdoor.number).start()
            tasks = [asyncio.create_task(loop()) for loop in loops]
            await stop.wait()
            for task in tasks:
                task.cancel()
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    sys.exit(run_until_signal("frontdoor", serve))
