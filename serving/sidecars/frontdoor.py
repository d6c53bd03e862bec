"""What the gateway cannot answer by itself: which models there are, what they take, and whether they are ready.

    python -m serving.sidecars.frontdoor

    /readyz, /v2/health/ready                          the default version of every model takes requests
    /v2/health/live                                    TorchServe's frontend answers
    /v2                                                name, version and extensions of the server
    /v1/models                                         {"models": [names]}
    /v1/models/{model}                                 {"name", "ready"}
    /v2/models/{model}[/versions/{version}]            the Open Inference Protocol's metadata, by the handler
    /v2/models/{model}[/versions/{version}]/ready      {"name", "ready"}
    /metrics                                           what Prometheus asks for; the gateway does not lead there

What is not ready is 503 and what is not there 404, both ``application/problem+json``. Answers may be a second old, so
that probes cost TorchServe next to nothing. Only the gateway calls here, with paths that it has checked.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from handlers import problems
from serving import NAME, VERSION
from serving.errors import CallError
from serving.gateway import config
from serving.settings import Settings
from serving.sidecars.metrics.gateway import GatewayAnswers
from serving.sidecars.metrics.page import Watch
from serving.sidecars.process import run_until_signal
from serving.sidecars.torchserve import Upstream
from serving.torchserve.management import Management

logger = logging.getLogger("serving.sidecars.frontdoor")

# Seconds that an answer is used again.
MAX_AGE = 1.0
# Answers that are kept at once.
_REMEMBERED = 1000
# Seconds that requests in flight may take when the service is stopped.
_GRACE = 2.0

Ask = Callable[[web.Request], Awaitable[Any]]


class NotFound(problems.Problem):
    """There is no such model or version."""

    status = 404
    title = "Not found"
    type = problems.TYPE_PREFIX + "not-found"


class FrontDoor:
    """Answers for one TorchServe.

    Args:
        upstream: its APIs.
        draining: when it is set, the service is not ready.
    """

    def __init__(self, upstream: Upstream, draining: asyncio.Event) -> None:
        self._upstream = upstream
        self._draining = draining
        self._answers: dict[str, tuple[float, asyncio.Task[bytes]]] = {}

    def application(self) -> web.Application:
        """The routes above as an application."""
        routes: dict[str, Ask] = {
            "/readyz": self._ready,
            "/v2/health/ready": self._ready,
            "/v2/health/live": self._live,
            "/v2": self._server,
            "/v1/models": self._models,
            "/v1/models/{model}": self._model_v1,
            "/v2/models/{model}": self._metadata,
            "/v2/models/{model}/versions/{version}": self._metadata,
            "/v2/models/{model}/ready": self._model_ready,
            "/v2/models/{model}/versions/{version}/ready": self._model_ready,
        }
        application = web.Application()
        for path, ask in routes.items():
            application.router.add_get(path, self._answering(ask))
        return application

    async def _ready(self, _request: web.Request) -> Any:
        if waiting := await self._upstream.managed(Management.waiting):
            raise CallError(503, f"not ready: {', '.join(waiting)}")
        return {"ready": True}

    async def _live(self, _request: web.Request) -> Any:
        if not await self._upstream.live():
            raise CallError(503, "TorchServe does not answer")
        return {"live": True}

    async def _server(self, _request: web.Request) -> Any:
        return {"name": NAME, "version": VERSION, "extensions": ["binary_tensor_data"]}

    async def _models(self, _request: web.Request) -> Any:
        return {"models": await self._upstream.managed(Management.names)}

    async def _model_v1(self, request: web.Request) -> Any:
        name = request.match_info["model"]
        return {"name": name, "ready": await self._upstream.model_ready(name, "")}

    async def _model_ready(self, request: web.Request) -> Any:
        name, version = request.match_info["model"], request.match_info.get("version", "")
        if not await self._upstream.model_ready(name, version):
            raise CallError(503, f"model {name} has workers that are not ready")
        return {"name": name, "ready": True}

    async def _metadata(self, request: web.Request) -> Any:
        return await self._upstream.metadata(request.match_info["model"], request.match_info.get("version", ""))

    def _answering(self, ask: Ask) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                if self._draining.is_set() and ask == self._ready:
                    raise CallError(503, "the service is stopping")
                # Shielded: one caller who goes away must not take the answer from the others.
                body = await asyncio.shield(self._remembered(request, ask))
                return web.Response(body=body, content_type="application/json")
            except CallError as error:
                problem = (NotFound if error.status == 404 else problems.Unavailable)(error.detail)
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                logger.warning("TorchServe cannot be reached: %s", error)
                problem = problems.Unavailable("TorchServe does not answer")
            return web.Response(
                status=problem.status,
                body=problem.body(request.headers.get("X-Request-Id", "")),
                content_type=problems.CONTENT_TYPE,
            )

        return answer

    def _remembered(self, request: web.Request, ask: Ask) -> asyncio.Task[bytes]:
        """The answer to the same question if it is young enough, also one that is still being made."""
        now = time.monotonic()
        made, task = self._answers.get(request.path, (0.0, None))
        if task is None or now - made >= MAX_AGE:
            if len(self._answers) >= _REMEMBERED:
                self._answers.clear()

            async def ask_now() -> bytes:
                return orjson.dumps(await ask(request))

            task = asyncio.create_task(ask_now())
            self._answers[request.path] = now, task
        return task


async def serve(given: Settings, draining: asyncio.Event, stop: asyncio.Event) -> None:
    """Answer until ``stop`` is set.

    Args:
        given: where it listens, where TorchServe's APIs are, and where the metrics come from.
        draining: set it to have the service called not ready.
        stop: set it to end.

    Raises:
        OSError: the address cannot be listened on.
    """
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        upstream = Upstream(session, given)
        application = FrontDoor(upstream, draining).application()
        answers = GatewayAnswers(config.answers_log(given))
        watch = Watch(session, upstream, given.counts, answers, f"{given.gateway_status.url}/status")
        application.router.add_get("/metrics", watch.answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=_GRACE)
        await runner.setup()
        try:
            await web.TCPSite(runner, given.frontdoor.host, given.frontdoor.number).start()
            counting = asyncio.create_task(answers.run())
            await stop.wait()
            counting.cancel()
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    sys.exit(run_until_signal("frontdoor", serve))
