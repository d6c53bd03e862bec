"""The gRPC bridge: the Open Inference Protocol in front of TorchServe's HTTP APIs.

    python -m serving.sidecars.grpc.server

Callers come through the gateway. Beside the protocol it answers gRPC's own health service (SERVING while the service is
ready) and server reflection. SIGUSR1 has the health service say NOT_SERVING; SIGTERM and SIGINT end the bridge.
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
from serving.sidecars.grpc.service import PROTOCOL, Service, add_to
from serving.sidecars.process import run_until_signal
from serving.sidecars.torchserve import Upstream

logger = logging.getLogger("serving.sidecars.grpc.server")

# Time for calls in flight when the bridge is stopped: as long as nginx gives them.
GRACE_S = 75.0
# Time for their last answers to be sent.
_STREAMS_GRACE_S = 1.0
# Calls at once, each on a connection of its own to the frontend; more are refused with RESOURCE_EXHAUSTED. TorchServe
# queues what its workers cannot take yet, and answers 503 when that queue is full.
CALLS = 1024
# Seconds between two looks at the workers for the health service.
HEALTH_INTERVAL_S = 2.0


async def serve(given: Settings, draining: asyncio.Event, stop: asyncio.Event) -> None:
    """Answer calls until ``stop`` is set.

    Args:
        given: where it listens, and where TorchServe's APIs are.
        draining: set it to have the health service say NOT_SERVING.
        stop: set it to end: new calls are refused, those in flight get ``GRACE_S``.

    Raises:
        OSError: the address cannot be listened on.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CALLS), cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        upstream = Upstream(session, given)
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
        service = Service(upstream)
        add_to(server, service)
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        reflection.enable_server_reflection((PROTOCOL.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        address = given.grpc_bridge.address
        try:
            server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}; is the port in use?") from error
        await server.start()
        logger.info("gRPC on %s, in front of %s", address, given.inference.url)
        watch = asyncio.create_task(_watch(upstream, checks, draining))
        try:
            await stop.wait()
        finally:
            watch.cancel()
            await checks.enter_graceful_shutdown()
            # No new calls from now on. Streams of the health service may stay open for ever, so calls alone count.
            stopping = asyncio.ensure_future(server.stop(GRACE_S))
            await asyncio.wait([stopping, asyncio.create_task(service.idle())], return_when=asyncio.FIRST_COMPLETED)
            await server.stop(_STREAMS_GRACE_S)
            await stopping
            logger.info("gRPC stopped")


async def _watch(upstream: Upstream, checks: health.aio.HealthServicer, draining: asyncio.Event) -> None:
    while not draining.is_set():
        await _set_health(checks, await upstream.ready())
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(draining.wait(), HEALTH_INTERVAL_S)
    await checks.enter_graceful_shutdown()


async def _set_health(checks: health.aio.HealthServicer, ready: bool) -> None:
    status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in ("", PROTOCOL.full_name):
        await checks.set(name, status)


if __name__ == "__main__":
    sys.exit(run_until_signal("grpc_bridge", serve))
