"""The command line that the gRPC bridge and the front door share: where to listen, whom to ask, when to end."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence

from serving import settings
from serving.errors import ServingError
from serving.settings import Port, Settings

# Answers until the event is set: host, port, TorchServe's inference and management addresses, the event.
Serve = Callable[[str, int, str, str, asyncio.Event], Awaitable[None]]


async def _until_signal(serve: Serve, arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(arguments.host, arguments.port, arguments.inference, arguments.management, stop)


def run(name: str, description: str, port: Callable[[Settings], Port], serve: Serve, argv: Sequence[str] | None) -> int:
    """Read the command line of ``python -m serving.<name>`` and serve until SIGTERM or SIGINT; logs go to stderr.

    Args:
        name: the module, as its messages name it.
        description: one line of help.
        port: which of the settings' ports is its own.
        serve: the service.
        argv: the arguments; those of the program if ``None``.

    Returns:
        The exit code: 1, after a line on stderr, for a setting or an address that cannot be used.
    """
    try:
        defaults = settings.read()
    except ServingError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    parser = argparse.ArgumentParser(prog=f"python -m serving.{name}", description=description)
    parser.add_argument("--host", default=defaults.listen, help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=port(defaults).number, help="port to listen on (%(default)s)")
    parser.add_argument("--inference", default=defaults.inference.url, help="TorchServe's inference API (%(default)s)")
    parser.add_argument("--management", default=defaults.management.url, help="its management API (%(default)s)")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(_until_signal(serve, parser.parse_args(argv)))
    except OSError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0
