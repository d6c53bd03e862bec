"""A minimal HTTP/1.1 client for load generators: one connection, one request at a time.

Answers must have a Content-Length, as all of the gateway's do.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from typing import NamedTuple, cast


class Reply(NamedTuple):
    """One answer.

    Attributes:
        status: the status code.
        head: status line and headers in lower case, separated by CR LF, without the final empty line.
        body: the content.
    """

    status: int
    head: bytes
    body: bytes

    def header(self, name: bytes) -> bytes:
        """The value of the header with this lower-case name; empty without one."""
        start = self.head.find(b"\r\n" + name + b":")
        if start < 0:
            return b""
        start += len(name) + 3
        end = self.head.find(b"\r\n", start)
        return self.head[start : end if end >= 0 else None].strip()


class BrokenError(Exception):
    """The connection ended before the answer was complete."""


class TooLateError(Exception):
    """The answer did not arrive in time."""


def request(method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: fashion-serve", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection(asyncio.Protocol):
    """A keep-alive connection; use ``open`` to make one.

    Attributes:
        alive: whether requests can be sent.
        since: when the current request was sent, by ``time.perf_counter``; 0 without one.
    """

    def __init__(self) -> None:
        self.alive = False
        self.since = 0.0
        self._received = bytearray()
        self._waiting: asyncio.Future[Reply] | None = None
        self._body_starts = 0
        self._reply_bytes = 0
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls, host: str, port: int, tls: ssl.SSLContext | None = None) -> Connection:
        """Connect, with TLS if there is a context.

        Raises:
            OSError: the connection was not accepted.
        """
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, port, ssl=tls)
        return connection

    async def send(self, content: bytes) -> Reply:
        """Send a request and wait for its answer.

        Raises:
            BrokenError: the connection ended first.
            TooLateError: ``time_out`` was called.
        """
        self._waiting = self._loop.create_future()
        self.since = time.perf_counter()
        self._transport.write(content)
        try:
            return await self._waiting
        finally:
            self.since = 0.0
            self._waiting = None

    def time_out(self) -> None:
        """End the connection and its current request."""
        self._end(TooLateError())

    def close(self) -> None:
        """End the connection."""
        self._end(BrokenError())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.alive = True

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        if not self._reply_bytes:
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = bytes(received[:end]).lower()
            length = Reply(0, self._head, b"").header(b"content-length")
            if not length.isdigit():
                self.close()
                return
            self._body_starts = end + 4
            self._reply_bytes = self._body_starts + int(length)
        if len(received) < self._reply_bytes:
            return
        reply = Reply(int(self._head[9:12]), self._head, bytes(received[self._body_starts : self._reply_bytes]))
        received.clear()
        self._reply_bytes = 0
        if b"\r\nconnection: close" in self._head:
            self.alive = False
            self._transport.close()
        if self._waiting and not self._waiting.done():
            self._waiting.set_result(reply)

    def connection_lost(self, _reason: Exception | None) -> None:
        self._end(BrokenError())

    def _end(self, reason: Exception) -> None:
        self.alive = False
        self._transport.abort()
        if self._waiting and not self._waiting.done():
            self._waiting.set_exception(reason)
