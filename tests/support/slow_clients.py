"""Slow clients, in a process of their own.

    python -m tests.support.slow_clients --port 8000 --count 5000

A quarter each sends the headers byte by byte, sends the body byte by byte, never finishes the body, and sends nothing.
Others reset their connection right after the request. A client whose connection is closed reconnects. The process
prints ``open`` when nearly all clients are connected, and ends on SIGTERM.
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

# Below the gateway's client_body_timeout of 15 s, so that the gateway does not close such a connection.
PAUSE_S = 8.0
# A client whose connection was closed reconnects after this pause.
_RECONNECT_PAUSE_S = 1.0
_RESETS_PER_S = 20.0
# A server accepts this rate without dropping connections.
_CONNECTS_PER_S = 2500
# Not 1, because the first connections may be closed before the last one is open.
_OPEN_SHARE = 0.98
_HEAD = b"POST /predictions/fashion_mlp HTTP/1.1\r\nHost: slow\r\nContent-Type: application/octet-stream\r\n"
_WHOLE = _HEAD + b"Content-Length: 784\r\n\r\n"


class Client(asyncio.Protocol):
    """One slow client.

    Args:
        number: of the client, which decides how it is slow.
        crowd: all clients.
    """

    def __init__(self, number: int, crowd: Crowd) -> None:
        self._number = number
        self._crowd = crowd
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._crowd.count_opened()
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
            self._timer = asyncio.get_running_loop().call_later(PAUSE_S, self._dribble)

    def connection_lost(self, _reason: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        self._crowd.open -= 1
        self._crowd.connect(self._number, _RECONNECT_PAUSE_S)


class Crowd:
    """All clients.

    Args:
        port: of the server.
        count: of the clients.

    Attributes:
        open: the number of open connections.
        opened: the number of connections so far.
    """

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._count = count
        self._ending = False
        self._filled = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.open = 0
        self.opened = 0

    def count_opened(self) -> None:
        """Count a new connection."""
        self.open += 1
        self.opened += 1
        if self.open >= self._count * _OPEN_SHARE:
            self._filled.set()

    def connect(self, number: int, after: float) -> None:
        """Connect a client after some seconds, unless the crowd is leaving."""
        if not self._ending:
            task = asyncio.get_running_loop().create_task(self._connect(number, after))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, number: int, after: float) -> None:
        await asyncio.sleep(after)
        try:
            await asyncio.get_running_loop().create_connection(lambda: Client(number, self), HOST, self._port)
        except OSError:
            self.connect(number, _RECONNECT_PAUSE_S)

    async def run(self) -> None:
        """Connect all clients, and keep them connected until SIGTERM."""
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        for number in range(self._count):
            self.connect(number, number / _CONNECTS_PER_S)
        waits = [asyncio.create_task(event.wait()) for event in (self._filled, ended)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        print("open", flush=True)
        while not ended.is_set():
            with contextlib.suppress(OSError):
                _reset(self._port)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(ended.wait(), 1 / _RESETS_PER_S)
        self._ending = True
        print(f"{self.opened} connections, {self.open} at the end", flush=True)


def _reset(port: int) -> None:
    """Send a request, and reset the connection before the answer."""
    with socket.create_connection((HOST, port), timeout=2) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(_WHOLE + bytes(784))


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.slow_clients", description="Slow clients.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    arguments = parser.parse_args()
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))

    async def run() -> None:
        await Crowd(arguments.port, arguments.count).run()

    asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
