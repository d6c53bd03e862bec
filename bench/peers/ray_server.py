"""Ray Serve: one replica per worker, batches by its decorator, raw bodies through its HTTP proxy."""

from __future__ import annotations

import signal

from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.requests import Request
from starlette.responses import Response

from bench.peers.predictor import BATCH, PORT, WAIT_MS, WORKERS, Predictor

QUIET = LoggingConfig(enable_access_log=False, log_level="ERROR")


@serve.deployment(
    num_replicas=WORKERS, max_ongoing_requests=1024, ray_actor_options={"num_cpus": 0.1}, logging_config=QUIET
)
class Classify:
    def __init__(self) -> None:
        self._predictor = Predictor()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WAIT_MS / 1000)
    async def _predict(self, bodies: list[bytes]) -> list[bytes]:
        return self._predictor(bodies)

    async def __call__(self, request: Request) -> Response:
        return Response(await self._predict(await request.body()), media_type="application/json")


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": PORT}, logging_config=QUIET)
    serve.run(Classify.bind(), route_prefix="/predict")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
