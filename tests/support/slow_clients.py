"""Clients that keep a server waiting, in a process of their own.

    python -m tests.support.slow_clients --port 8000 --count 5000

A quarter of them each sends the headers a byte at a time, sends the body a byte at a time, never finishes the body, and
sends nothing at all; beside them some vanish as soon as they have asked. Whoever is put out comes back. It prints
``open`` when all have a connection, and ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import signal
import socket
import struct
import sys

from serving.settings import HOST

# Seconds between two bytes: under the gateway's limit for a body, so that only patience ends such a client.
PAUSE = 8.0
# Seconds before a client that was put out comes back.
_BACK = 1.0
# Clients a second that vanish.
_VANISHING = 20.0
_HEAD = b"POST /predictions/fashion_mlp HTTP/1.1\r\nHost: slow\r\nContent-Type: application/octet-stream\r\n"
_WHOLE = _HEAD + b"Content-Length: 784\r\n\r\n"


class Client(asyncio.Protocol):
    """One that dawdles in a way of its own.

    Args:
        number: decides the way.
        crowd: all of them.
    """

    def __init__(self, number: int, crowd: Crowd) -> None:
        self._number = number
        self._crowd = crowd
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._crowd.open += 1
        self._crowd.opened += 1
        way = self._number % 4
        if way == 0:
            self._rest = _HEAD
            self._dribble()
        elif way == 1:
            transport.write(_WHOLE)
            self._rest = bytes(784)
            self._dribble()
        elif way == 2:
            transport.write(_WHOLE + bytes(300))

    def _dribble(self) -> None:
        self._transport.write(self._rest[:1])
        self._rest = self._rest[1:]
        if self._rest:
            self._timer = asyncio.get_running_loop().call_later(PAUSE, self._dribble)

    def connection_lost(self, _reason: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        self._crowd.open -= 1
        self._crowd.come(self._number, _BACK)


class Crowd:
    """All clients.

    Args:
        port: of the server.
        count: how many.

    Attributes:
        open: connections at the moment.
        opened: connections that there were.
    """

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._count = count
        self._ending = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.open = 0
        self.opened = 0

    def come(self, number: int, after: float) -> None:
        """Let a client come some seconds later, unless it is all over."""
        if not self._ending:
            task = asyncio.get_running_loop().create_task(self._come(number, after))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _come(self, number: int, after: float) -> None:
        await asyncio.sleep(after)
        try:
            await asyncio.get_running_loop().create_connection(lambda: Client(number, self), HOST, self._port)
        except OSError:
            self.come(number, _BACK)

    async def stay(self) -> None:
        """Come, stay until SIGTERM, and leave."""
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        for number in range(self._count):
            # A server takes so many a second without dropping any.
            self.come(number, number / 2500)
        while self.open < self._count * 0.98 and not ended.is_set():
            await asyncio.sleep(0.05)
        print("open", flush=True)
        while not ended.is_set():
            with contextlib.suppress(OSError):
                _vanish(self._port)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(ended.wait(), 1 / _VANISHING)
        self._ending = True
        print(f"{self.opened} connections, {self.open} in the end", flush=True)


def _vanish(port: int) -> None:
    """Ask for a prediction and reset the connection before it comes."""
    with socket.create_connection((HOST, port), timeout=2) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(_WHOLE + bytes(784))


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.slow_clients", description="Clients that dawdle.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    given = parser.parse_args()
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))

    async def stay() -> None:
        await Crowd(given.port, given.count).stay()

    asyncio.run(stay())
    return 0


if __name__ == "__main__":
    sys.exit(main())
