"""The process of the gRPC bridge and of the front door: logging, settings, signals and exit code."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable

from serving.errors import ServingError
from serving.settings import Settings, read

# Its arguments: the settings; draining: report that the service is not ready; stop: end.
Serve = Callable[[Settings, asyncio.Event, asyncio.Event], Awaitable[None]]


async def _until_signal(serve: Serve, settings: Settings) -> None:
    draining, stop = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, draining.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, draining, stop)


def run_until_signal(name: str, serve: Serve) -> int:
    """Serve with the environment's settings until SIGTERM or SIGINT. SIGUSR1 starts draining. Logs go to stderr.

    Args:
        name: the process's name in error messages.
        serve: the server.

    Returns:
        The exit code: 1, after a line on stderr, if a setting or an address cannot be used.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(_until_signal(serve, read()))
    except (ServingError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0
