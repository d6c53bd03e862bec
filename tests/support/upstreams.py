"""A stand-in for TorchServe's frontend that fails according to the test's script."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Iterable
from typing import Any

from serving.settings import HOST

DROP = b""
SILENT = b"silent"


def answer(status: int, body: bytes = b"{}", *headers: str) -> bytes:
    """The bytes of an HTTP answer."""
    lines = [f"HTTP/1.1 {status} Scripted", "content-type: application/json", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class ScriptedUpstream:
    """Serves on a free port while it is a context manager.

    Attributes:
        port: where it listens.
        requests: head and body of each received request, in order.
        connections: number of accepted connections.
    """

    def __init__(self) -> None:
        self._script: list[bytes] = []
        self._lock = threading.Lock()
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = 0

    def play(self, answers: Iterable[bytes]) -> None:
        """Answer the next requests with these bytes, and all further ones with 200.

        ``DROP`` resets the connection, ``SILENT`` leaves it open, and a head without an end closes it.
        """
        with self._lock:
            self._script = list(answers)
            self.requests.clear()

    def next(self, head: bytes, body: bytes) -> bytes:
        """Record a request and return its answer."""
        with self._lock:
            self.requests.append((head, body))
            return self._script.pop(0) if self._script else answer(200)

    def __enter__(self) -> ScriptedUpstream:
        upstream = self

        class Handler(socketserver.StreamRequestHandler):
            def setup(self) -> None:
                super().setup()
                with upstream._lock:
                    upstream.connections += 1

            def handle(self) -> None:
                while head := _head(self.rfile):
                    length = next(
                        (line for line in head.split(b"\r\n") if line.lower().startswith(b"content-len")), b":0"
                    )
                    reply = upstream.next(head, self.rfile.read(int(length.partition(b":")[2])))
                    if reply is DROP:
                        # A reset, as from a killed process, and not an orderly end.
                        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        return
                    if reply is SILENT:
                        self.rfile.read(1)
                        return
                    self.wfile.write(reply)
                    if b"\r\n\r\n" not in reply:
                        return

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server((HOST, 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _head(file: Any) -> bytes:
    head = b""
    while (line := file.readline()) not in (b"", b"\r\n"):
        head += line
    return head
