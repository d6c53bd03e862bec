"""Commands to a running service: its supervisor carries out rollouts, one at a time, and says how they go.

    python -m serving deploy … ──{"command": …}──► supervisor        over a Unix socket in its private scratch folder
                               ◄──{"doing": …}, …, {"done": …} or {"error": …}──

A caller that closes its side, as Ctrl-C does, breaks the rollout off at its next step; what was live stays live.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving import rollout_commands
from serving.errors import BusyError, NotRunningError, RolloutError, ServingError
from serving.rollout import Report
from serving.settings import Settings

logger = logging.getLogger(__name__)

# How long a command that undoes something waits for another one to end.
_PATIENCE_S = 90.0
_UNDOING = ("rollback", "abort")


def path(scratch: Path) -> Path:
    """The socket of the service with this scratch folder."""
    return scratch / "control"


class _Caller:
    """Who is told how a command goes, from the thread that carries it out."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._said = ""
        self.gone = threading.Event()

    def report(self, doing: str) -> None:
        """Tell what is going on, if that has changed.

        Raises:
            RolloutError: the caller has broken the command off.
        """
        if self.gone.is_set():
            raise RolloutError("broken off")
        if doing != self._said:
            self._said = doing
            logger.info("%s", doing)
            self._loop.call_soon_threadsafe(lambda: self.tell(doing=doing))

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

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = _Caller(writer)
        asked = json.loads(await reader.readline())
        watching = asyncio.create_task(_watch(reader, caller))
        try:
            async with _Turn(versions, _PATIENCE_S if asked["command"] in _UNDOING else 0.0):
                caller.tell(done=await asyncio.to_thread(rollout_commands.run, asked, given, caller.report))
        except ServingError as error:
            caller.tell(error=str(error))
        except Exception:
            logger.exception("%s", asked)
            caller.tell(error="the command failed by a fault of the supervisor; its log has the reason")
        finally:
            caller.gone.set()
            watching.cancel()
            with suppress(OSError):
                writer.close()
                await writer.wait_closed()

    return await asyncio.start_unix_server(answer, path(scratch))


class _Turn:
    """Holds the lock, which has to come free within ``patience`` seconds."""

    def __init__(self, versions: asyncio.Lock, patience: float) -> None:
        self._versions = versions
        self._patience = patience

    async def __aenter__(self) -> None:
        try:
            if self._versions.locked():
                await asyncio.wait_for(self._versions.acquire(), self._patience)
            else:
                await self._versions.acquire()
        except asyncio.TimeoutError:
            raise BusyError("another rollout is under way, or TorchServe is being started; try again then") from None

    async def __aexit__(self, *_: object) -> None:
        self._versions.release()


async def _watch(reader: asyncio.StreamReader, caller: _Caller) -> None:
    with suppress(OSError):
        await reader.read()
    caller.gone.set()


def ask(scratch: Path | None, asked: Mapping[str, Any], report: Report) -> str:
    """Have a running service carry out one command.

    Args:
        scratch: its private folder; ``None`` where nothing runs.
        asked: the command, as ``rollout_commands.run`` takes it.
        report: told of each step.

    Returns:
        What is live now, in one line.

    Raises:
        NotRunningError: there is no such service, or it is still starting.
        RolloutError: nothing has changed; or, as the message says, all that is left to do is to tidy up.
        KeyboardInterrupt: broken off; what was live is live.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path(scratch or Path())))
        except OSError:
            raise NotRunningError("the service does not run, or is still starting; see: make status") from None
        connection.sendall(json.dumps(asked).encode() + b"\n")
        interrupted = None
        with connection.makefile() as lines:
            while True:
                try:
                    message = json.loads(lines.readline() or '{"error": "the service ended meanwhile"}')
                except KeyboardInterrupt as interrupt:
                    interrupted = interrupt
                    connection.shutdown(socket.SHUT_WR)
                    continue
                if interrupted and "doing" not in message:
                    raise interrupted
                if "error" in message:
                    raise RolloutError(message["error"])
                if "done" in message:
                    return str(message["done"])
                report(message["doing"])
