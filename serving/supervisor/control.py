"""Commands to a running service: its supervisor carries out rollouts, one at a time, and says how they go.

    python -m serving deploy … ──{"command": …}──► supervisor        over a Unix socket in its private scratch folder
                               ◄──{"doing": …}, …, {"done": …} or {"error": …}──

A caller that closes its side, as Ctrl-C does, breaks the rollout off at its next step; what was live stays live.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving import Report
from serving.errors import BusyError, NotRunningError, RolloutError, ServingError
from serving.rollout import commands
from serving.settings import Settings
from serving.supervisor.state import State

logger = logging.getLogger(__name__)

# How long a command that undoes something waits for another one to end: for the longest drain. The others hardly wait.
_PATIENCE_S = {"rollback": 90.0, "abort": 90.0}


def _path(scratch: Path) -> Path:
    return scratch / "control"


class _Caller:
    """The caller of a command; the thread that carries out the command reports to it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._said = ""
        self._gone = threading.Event()

    def report(self, doing: str) -> None:
        """Tell what is going on, if that has changed.

        Raises:
            RolloutError: the caller has broken the command off.
        """
        if self._gone.is_set():
            raise RolloutError("broken off")
        if doing != self._said:
            self._said = doing
            logger.info("%s", doing)
            self._loop.call_soon_threadsafe(lambda: self.tell(doing=doing))

    async def watch(self, reader: asyncio.StreamReader) -> None:
        """Notice that the caller closes its side."""
        try:
            await reader.read()
        finally:
            self._gone.set()

    def tell(self, **message: str) -> None:
        """Send one line."""
        self._writer.write(json.dumps(message).encode() + b"\n")


async def serve(given: Settings, scratch: Path, versions: asyncio.Lock) -> asyncio.AbstractServer:
    """Take commands from now on.

    Args:
        given: the service's settings.
        scratch: its private folder.
        versions: held while a command changes what is live.
    """

    async def carry_out(asked: dict[str, Any], report: Report) -> str:
        try:
            await asyncio.wait_for(versions.acquire(), _PATIENCE_S.get(asked["command"], 0.1))
        except asyncio.TimeoutError:
            raise BusyError("another rollout is under way, or TorchServe is being started; try again then") from None
        try:
            return await asyncio.to_thread(commands.run, asked, given, report)
        finally:
            versions.release()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = _Caller(writer)
        asked = json.loads(await reader.readline())
        watching = asyncio.create_task(caller.watch(reader))
        try:
            caller.tell(done=await carry_out(asked, caller.report))
        except ServingError as error:
            caller.tell(error=str(error))
        except Exception:
            logger.exception("%s", asked)
            caller.tell(error="the command failed by a fault of the supervisor; its log has the reason")
        finally:
            watching.cancel()
            with suppress(OSError):
                writer.close()
                await writer.wait_closed()

    return await asyncio.start_unix_server(answer, _path(scratch))


def ask(service: State | None, asked: Mapping[str, Any], report: Report) -> str:
    """Have a running service carry out one command.

    Args:
        service: what runs, if anything does.
        asked: the command, as ``rollout_commands.run`` takes it.
        report: told of each step.

    Returns:
        What is live now, in one line.

    Raises:
        NotRunningError: there is no such service, or it is still starting.
        ServingError: nothing has changed; or, as the message says, all that is left to do is to tidy up.
        KeyboardInterrupt: broken off; what was live is live.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(_path(Path(service.scratch if service else ""))))
        except OSError:
            raise NotRunningError("the service does not run, or is still starting; see: make status") from None
        connection.sendall(json.dumps(asked).encode() + b"\n")
        try:
            return outcome(connection.fileno(), report, "the service ended meanwhile")
        except KeyboardInterrupt:
            connection.shutdown(socket.SHUT_WR)
            # The supervisor undoes the command meanwhile.
            with suppress(ServingError):
                outcome(connection.fileno(), report, "")
            raise


def outcome(descriptor: int, report: Report, ended: str) -> str:
    """Read what the supervisor says until a command, or its own start, is over; the last word.

    Args:
        descriptor: to read from.
        report: told of each step.
        ended: what it means that the supervisor ends before.

    Raises:
        ServingError: the command failed, or the supervisor ended.
    """
    rest = b""
    while True:
        # A signal right before a blocking call is handled after it only, so no call blocks for long.
        if not select.select([descriptor], [], [], 0.2)[0]:
            continue
        if not (piece := os.read(descriptor, 1 << 16)):
            raise ServingError(ended)
        *lines, rest = (rest + piece).split(b"\n")
        for message in map(json.loads, lines):
            if "error" in message:
                raise ServingError(message["error"])
            if "done" in message:
                return str(message["done"])
            report(message["doing"])
