"""What the gRPC bridge and the front door share: they answer until a signal ends them."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable

from serving import settings
from serving.errors import ServingError
from serving.settings import Settings

# Answers until the second event is set; from the first one on it says that the service is not ready.
Serve = Callable[[Settings, asyncio.Event, asyncio.Event], Awaitable[None]]


async def _until_signal(serve: Serve, given: Settings) -> None:
    draining, stop = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, draining.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(given, draining, stop)


def run_until_signal(name: str, serve: Serve) -> int:
    """Serve with the environment's settings until SIGTERM or SIGINT; logs go to stderr.

    Args:
        name: the module, as its messages name it.
        serve: the service.

    Returns:
        The exit code: 1, after a line on stderr, for a setting or an address that cannot be used.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(_until_signal(serve, settings.read()))
    except (ServingError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0
