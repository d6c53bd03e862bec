"""The gRPC bridge: the Open Inference Protocol in front of TorchServe's HTTP APIs.

    python -m serving.sidecars.grpc.server

Callers reach it through the gateway. It also serves gRPC's own health service (SERVING while the service is ready) and
server reflection. After SIGUSR1 the health service reports NOT_SERVING; SIGTERM and SIGINT end the bridge.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress

import aiohttp
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from handlers import limits
from serving.settings import Settings
from serving.sidecars.grpc.service import PROTOCOL, Service, Unimplemented, add_to
from serving.sidecars.process import run_until_signal
from serving.sidecars.torchserve import Upstream
from serving.sidecars.triton import Extensions

logger = logging.getLogger("serving.sidecars.grpc.server")

# For calls in flight at a stop: equal to nginx's worker_shutdown_timeout.
GRACE_S = 75.0
# After the last call: for sending its answer, and then for ending open streams of the health service.
_STREAMS_GRACE_S = 1.0
# Concurrent calls, each with its own connection to the frontend. More are refused with RESOURCE_EXHAUSTED. TorchServe
# queues calls for its workers, and answers 503 when the queue is full.
MAX_CALLS = 1024
# How often the health service polls the readiness of the workers.
HEALTH_INTERVAL_S = 2.0


async def serve(settings: Settings, draining: asyncio.Event, stop: asyncio.Event) -> None:
    """Answer calls until ``stop`` is set.

    Args:
        settings: of the service.
        draining: once it is set, the health service reports NOT_SERVING.
        stop: once it is set, new calls are refused, and calls in flight have ``GRACE_S`` to end.

    Raises:
        OSError: the server cannot listen on its address.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_CALLS), cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        upstream = Upstream(session, settings)
        server = grpc.aio.server(
            maximum_concurrent_rpcs=MAX_CALLS,
            options=[
                ("grpc.max_receive_message_length", limits.REQUEST_BYTES),
                ("grpc.max_send_message_length", -1),
                # With port reuse, a second bridge on the same port would take part of the calls instead of failing.
                ("grpc.so_reuseport", 0),
            ],
        )
        checks = health.aio.HealthServicer()
        await _set_health(checks, False)
        service = Service(upstream, Extensions(upstream, settings.counts))
        add_to(server, service)
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        reflection.enable_server_reflection((PROTOCOL.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        server.add_generic_rpc_handlers((Unimplemented(),))
        address = settings.grpc_bridge.address
        try:
            server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}; is the port in use?") from error
        await server.start()
        logger.info("gRPC on %s, in front of %s", address, settings.inference.url)
        health_task = asyncio.create_task(_update_health(upstream, checks, draining))
        try:
            await stop.wait()
        finally:
            health_task.cancel()
            await checks.enter_graceful_shutdown()
            # No new calls from here on. Only inference calls are waited for, because streams of the health service may
            # stay open forever.
            stopping = asyncio.ensure_future(server.stop(GRACE_S))
            await asyncio.wait([stopping, asyncio.create_task(service.idle())], return_when=asyncio.FIRST_COMPLETED)
            await server.stop(_STREAMS_GRACE_S)
            await stopping
            logger.info("gRPC stopped")


async def _update_health(upstream: Upstream, checks: health.aio.HealthServicer, draining: asyncio.Event) -> None:
    while not draining.is_set():
        await _set_health(checks, await upstream.ready())
        await upstream.update_unbatched()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(draining.wait(), HEALTH_INTERVAL_S)
    await checks.enter_graceful_shutdown()


async def _set_health(checks: health.aio.HealthServicer, ready: bool) -> None:
    status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in ("", PROTOCOL.full_name):
        await checks.set(name, status)


if __name__ == "__main__":
    sys.exit(run_until_signal("grpc_bridge", serve))
