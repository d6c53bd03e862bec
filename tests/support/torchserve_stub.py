"""A stand-in for TorchServe: the paths of its HTTP APIs that the gRPC bridge and the front door use.

The handlers' own modules for the Open Inference Protocol parse requests and write answers. The "network" computes each
example's probabilities from its first three values.
"""

import asyncio
import threading

import numpy as np
from aiohttp import web

from handlers import problems
from handlers.inputs import open_inference
from handlers.outputs import open_inference as open_inference_outputs
from handlers.signature import Input, Output, Signature

SIGNATURE = Signature(
    "fashion", "1.0", "", Input("image", "image", (28, 28), (784,)), Output("softmax", ("Shirt", "Bag", "Ankle boot"))
)


def predict(values):
    """Probabilities, float32 [N, 3], that depend on the examples only."""
    scores = values.reshape(len(values), -1)[:, :3].astype(np.float32) + 1
    return scores / scores.sum(1, keepdims=True)


class TorchServeStub:
    """A context manager that serves on a free port, in its own thread.

    Models: ``fashion`` (versions 1.0 and 2.0); ``http-NNN`` answers with that status; ``drop`` aborts the connection;
    ``nonsense`` answers with other JSON than the protocol's; ``together`` answers only after ``crowd`` requests have
    arrived; ``held`` answers after ``release`` is called.

    Attributes:
        environment: the variables that point a bridge or a front door to this server.
        worker_status: the status of every worker in the management API.
        error_body: the body of ``http-NNN``'s answers.
        crowd: how many requests ``together`` waits for.
        paths: the path of each received prediction request.
        held, cancelled: set when a request for ``held`` arrives, and when its caller disconnects.
    """

    def __init__(self):
        self.reset()

    def reset(self):
        """Return to the initial state; no request may be waiting."""
        self.worker_status = "READY"
        self.error_body = b""
        self.crowd = 1
        self.paths = []
        self.held = threading.Event()
        self.cancelled = threading.Event()
        self._waiting, self._complete, self._released = 0, asyncio.Event(), asyncio.Event()

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def release(self):
        """Answer the requests for ``held``."""
        self._loop.call_soon_threadsafe(self._released.set)

    async def _start(self):
        application = web.Application(client_max_size=2**26)
        application.router.add_get("/ping", self._ping)
        application.router.add_get("/models", self._list)
        application.router.add_get("/models/{name}", self._describe)
        application.router.add_get("/models/{name}/{version}", self._describe)
        application.router.add_post("/predictions/{name}", self._predict)
        application.router.add_post("/predictions/{name}/{version}", self._predict)
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        # Two ports with all APIs, because the settings have a port for each API.
        for _ in range(2):
            await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        numbers = [str(address[1]) for address in self._runner.addresses]
        self.environment = dict(zip(("FASHION_INFERENCE_PORT", "FASHION_MANAGEMENT_PORT"), numbers, strict=True))

    async def _ping(self, _):
        return web.json_response({"status": "Healthy"})

    async def _list(self, request):
        # Two pages, as from TorchServe with more models than the limit of the request.
        if "next_page_token" in request.query:
            return web.json_response({"models": [{"modelName": "together", "modelUrl": "together.mar"}]})
        return web.json_response({"nextPageToken": "1", "models": [{"modelName": "fashion", "modelUrl": "f.mar"}]})

    async def _describe(self, request):
        name, version = request.match_info["name"], request.match_info.get("version")
        if name not in ("fashion", "together") or version not in (None, "1.0", "2.0", "all"):
            return self._missing(name)
        answers = []
        for each in ("2.0", "1.0") if version == "all" else (version or "1.0",):
            worker = {"id": "9000", "status": self.worker_status, "pid": 1, "gpu": False}
            answers.append(
                {
                    "modelName": name,
                    "modelVersion": each,
                    "modelUrl": f"{name}.mar",
                    "batchSize": 1,
                    "maxBatchDelay": 1,
                    "minWorkers": 1,
                    "workers": [worker],
                    "jobQueueStatus": {"pendingRequests": 0, "remainingCapacity": 100},
                }
            )
        return web.json_response(answers)

    def _missing(self, name):
        body = {"code": 404, "type": "ModelNotFoundException", "message": f"Model not found: {name}"}
        return web.json_response(body, status=404)

    async def _predict(self, request):
        name = request.match_info["name"]
        self.paths.append(request.path)
        if name.startswith("http-"):
            return web.Response(status=int(name[5:]), body=self.error_body)
        if name == "nonsense":
            return web.json_response({"class": 9})
        if name == "drop":
            request.transport.abort()
        elif name == "together":
            self._waiting += 1
            if self._waiting == self.crowd:
                self._complete.set()
            await self._complete.wait()
        elif name == "held":
            self.held.set()
            try:
                await self._released.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        elif name != "fashion" or request.match_info.get("version") not in (None, "1.0", "2.0"):
            return self._missing(name)
        if request.headers.get("describe") == "True":
            return web.json_response({**open_inference_outputs.metadata(SIGNATURE, ["1.0"]), "signature": {}})
        try:
            length = open_inference.read_json_length(request.headers.get(open_inference.JSON_LENGTH_HEADER))
            values, parsed = open_inference.parse(await request.read(), length, SIGNATURE)
            body, content_type, length = open_inference_outputs.encode(parsed, predict(values), SIGNATURE)
        except problems.Problem as problem:
            return web.Response(status=problem.status, body=problem.body("7"), content_type=problems.CONTENT_TYPE)
        return web.Response(
            body=body, content_type=content_type, headers={open_inference.JSON_LENGTH_HEADER: str(length)}
        )
