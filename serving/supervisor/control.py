"""Commands to a running service. Its supervisor runs rollouts, one at a time, and reports their progress.

    python -m serving deploy … ──{"command": …}──► supervisor        over a Unix socket in its private scratch folder
                               ◄──{"status": …}, …, {"done": …} or {"error": …}──

Ctrl-C closes the client's side of the socket. That interrupts the rollout at its next step, and the live version stays.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving import Report
from serving.errors import BusyError, NotRunningError, RolloutError, ServingError
from serving.rollout import commands
from serving.settings import Settings
from serving.supervisor.state import State

logger = logging.getLogger(__name__)

# A command that undoes a rollout waits until the running one is done: 60 s for the longest drain, with a margin.
_QUEUE_TIMEOUT_S = {"rollback": 90.0, "abort": 90.0}
# All others fail at once. The lock is free at the first attempt, or taken for seconds.
_DEFAULT_QUEUE_TIMEOUT_S = 0.1


def _path(scratch: Path) -> Path:
    return scratch / "control"


class _Client:
    """The client of one command. The thread that runs the command reports to it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._reported = ""
        self._closed = threading.Event()

    def report(self, status: str) -> None:
        """Send the status, if it has changed.

        Raises:
            RolloutError: the client has closed its side.
        """
        if self._closed.is_set():
            raise RolloutError("interrupted")
        if status != self._reported:
            self._reported = status
            logger.info("%s", status)
            self._loop.call_soon_threadsafe(lambda: self.send(status=status))

    async def watch(self, reader: asyncio.StreamReader) -> None:
        """Wait until the client closes its side."""
        try:
            await reader.read()
        finally:
            self._closed.set()

    def send(self, **message: str) -> None:
        """Send one message."""
        self._writer.write(json.dumps(message).encode() + b"\n")


async def serve(settings: Settings, scratch: Path, versions: asyncio.Lock) -> asyncio.AbstractServer:
    """Start to accept commands.

    Args:
        settings: of the service.
        scratch: its private folder.
        versions: the lock that a command holds while it changes the live versions.
    """

    async def run(arguments: dict[str, Any], report: Report) -> str:
        try:
            timeout = _QUEUE_TIMEOUT_S.get(arguments["command"], _DEFAULT_QUEUE_TIMEOUT_S)
            await asyncio.wait_for(versions.acquire(), timeout)
        except asyncio.TimeoutError:
            raise BusyError("another rollout is running, or TorchServe is starting; try again later") from None
        try:
            return await asyncio.to_thread(commands.run, arguments, settings, report)
        finally:
            versions.release()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(writer)
        arguments = json.loads(await reader.readline())
        watching = asyncio.create_task(client.watch(reader))
        try:
            client.send(done=await run(arguments, client.report))
        except ServingError as error:
            client.send(error=str(error))
        except Exception:
            logger.exception("%s", arguments)
            client.send(error="internal error of the supervisor; see its log")
        finally:
            watching.cancel()
            with suppress(OSError):
                writer.close()
                await writer.wait_closed()

    return await asyncio.start_unix_server(answer, _path(scratch))


def request(service: State | None, arguments: Mapping[str, Any], report: Report) -> str:
    """Let a running service run one command.

    Args:
        service: its state; ``None`` if it is not running.
        arguments: of the command, as ``rollout.commands.run`` takes them.
        report: receives the progress.

    Returns:
        The result, in one line.

    Raises:
        NotRunningError: the service is not running, or is still starting.
        ServingError: nothing has changed; or only the cleanup failed, as the message says.
        KeyboardInterrupt: interrupted; the live version is unchanged.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(_path(Path(service.scratch if service else ""))))
        except OSError:
            raise NotRunningError("the service is not running, or is still starting; see: make status") from None
        connection.sendall(json.dumps(arguments).encode() + b"\n")
        try:
            return outcome(connection.fileno(), report, lambda: "the service stopped before the command was done")
        except KeyboardInterrupt:
            connection.shutdown(socket.SHUT_WR)
            # The supervisor undoes the command; wait until it is done.
            with suppress(ServingError):
                outcome(connection.fileno(), report, lambda: "")
            raise


def outcome(descriptor: int, report: Report, ended: Callable[[], str]) -> str:
    """Read the supervisor's messages until a command, or its own start, is done; return the result.

    Args:
        descriptor: to read from.
        report: receives the progress.
        ended: returns the error message if the supervisor ends first.

    Raises:
        ServingError: the command failed, or the supervisor ended.
    """
    rest = b""
    while True:
        # Python handles a signal that arrives right before a blocking call only after that call. Keep calls short.
        if not select.select([descriptor], [], [], 0.2)[0]:
            continue
        if not (piece := os.read(descriptor, 1 << 16)):
            raise ServingError(ended())
        *lines, rest = (rest + piece).split(b"\n")
        for message in map(json.loads, lines):
            if "error" in message:
                raise ServingError(message["error"])
            if "done" in message:
                return str(message["done"])
            report(message["status"])
