"""The public gRPC port: the Open Inference Protocol in front of TorchServe's HTTP APIs.

    python -m serving.grpc_bridge --port 8001 --inference http://127.0.0.1:8080 --management http://127.0.0.1:8081

Beside the protocol it answers gRPC's own health service (SERVING while every worker is READY) and server reflection.
SIGTERM and SIGINT end it: calls in flight get ``GRACE`` seconds. It logs to stderr.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence

import aiohttp
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from handlers import limits
from serving import settings, side_process, tokens
from serving.grpc_service import PROTOCOL, Service, add_to
from serving.upstream import Upstream

logger = logging.getLogger("serving.grpc_bridge")

# Seconds that calls in flight may take when the bridge is stopped.
GRACE = 5.0
# Calls at once, each on a connection of its own to the frontend; more are refused with RESOURCE_EXHAUSTED. TorchServe
# queues what its workers cannot take yet, and answers 503 when that queue is full.
CALLS = 1024
# Seconds between two looks at the workers for the health service.
HEALTH_INTERVAL = 2.0


async def serve(host: str, port: int, inference: str, management: str, stop: asyncio.Event) -> None:
    """Answer calls until ``stop`` is set.

    Args:
        host, port: where to listen; port 0 takes a free one, which is logged.
        inference, management: the addresses of TorchServe's APIs, without a slash at the end.
        stop: set it to end: new calls are refused, those in flight get ``GRACE`` seconds.

    Raises:
        OSError: the address cannot be listened on.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CALLS), cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        upstream = Upstream(session, inference, management, tokens.given_by(settings.read()))
        server = grpc.aio.server(
            maximum_concurrent_rpcs=CALLS,
            options=[
                ("grpc.max_receive_message_length", limits.REQUEST_BYTES),
                ("grpc.max_send_message_length", -1),
                # Two bridges on one port would share its calls instead of the second one failing.
                ("grpc.so_reuseport", 0),
            ],
        )
        checks = health.aio.HealthServicer()
        await _set_health(checks, False)
        add_to(server, Service(upstream))
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        reflection.enable_server_reflection((PROTOCOL.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        bound = _listen(server, host, port)
        await server.start()
        logger.info("gRPC on %s:%d, in front of %s", host, bound, inference)
        watch = asyncio.create_task(_watch(upstream, checks))
        try:
            await stop.wait()
        finally:
            watch.cancel()
            await checks.enter_graceful_shutdown()
            await server.stop(GRACE)
            logger.info("gRPC stopped")


def _listen(server: grpc.aio.Server, host: str, port: int) -> int:
    try:
        return server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {host}:{port}; is the port in use?") from error


async def _watch(upstream: Upstream, checks: health.aio.HealthServicer) -> None:
    while True:
        await _set_health(checks, await upstream.ready())
        await asyncio.sleep(HEALTH_INTERVAL)


async def _set_health(checks: health.aio.HealthServicer, ready: bool) -> None:
    status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in ("", PROTOCOL.full_name):
        await checks.set(name, status)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    return side_process.run("grpc_bridge", __doc__.partition("\n")[0], lambda given: given.grpc, serve, argv)


if __name__ == "__main__":
    sys.exit(main())
