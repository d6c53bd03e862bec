"""The supervisor: the parent of all parts of the service, from the first start to the last end.

    python -m serving.supervisor.supervisor REPORT      detached, by `python -m serving start`; REPORT is a descriptor

    lock ─► scratch folder ─► each part in order: spawn, wait until ready ─► ready
                                 │
         SIGTERM, SIGINT ◄───────┤  a part ends, or answers nothing for long ─► kill its group ─► back off ─► start it
              │
              └─► /readyz says 503 ─► drain delay ─► callers' side ends, its requests answered ─► the rest in parallel

On Linux the parts end when the supervisor is killed (``child.py``). A restarted TorchServe loads the versions that are
live at that time (``run/live.json``). Rollouts run in the supervisor, so that none runs while TorchServe starts; their
commands arrive over a Unix socket in the scratch folder (``control.py``).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from filelock import Timeout

from serving import Report, polling, ports, settings
from serving.errors import AlreadyRunningError, PortInUseError, ServingError
from serving.settings import Settings
from serving.sidecars.metrics import workers
from serving.store import index, live
from serving.supervisor import control, parts, state
from serving.supervisor.child import Child
from serving.supervisor.state import State
from serving.torchserve import jvm

logger = logging.getLogger("serving.supervisor")

# Longest pause between two attempts to start a part.
_BACKOFF_LIMIT_S = 60.0
# A part that has run for so long begins with its first attempt again.
_SETTLED_S = 60.0
# nginx and the bridge finish what they answer within 75 s, nginx's worker_shutdown_timeout.
_CALLERS_GRACE_S = 80.0
# TorchServe takes 2 to 4 s.
_GRACE_S = 15.0
# What a killed service has left is gone within this time.
_LEFTOVERS_S = 15.0
# Other commands look at the lock by taking it for a moment.
_LOCK_PATIENCE_S = 1.0


class Supervisor:
    """Starts the parts, keeps them running, and stops them.

    Args:
        given: the settings.
        report: told what is going on, whenever that changes.
    """

    def __init__(self, given: Settings, report: Report) -> None:
        self._given = given
        self._report = report
        self._children: list[Child] = []
        self._started = time.monotonic()
        self._scratch = Path()
        self._stopping = asyncio.Event()
        # Held by a rollout, and by a start of TorchServe.
        self._versions = asyncio.Lock()

    def stop(self) -> None:
        """Have ``run`` end."""
        self._stopping.set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Start everything, and stop it when ``stop`` is called.

        Args:
            ready: called when everything is.

        Raises:
            ServingError: it cannot be started; nothing is left running.
        """
        self._given.run.mkdir(parents=True, exist_ok=True)
        try:
            held = state.lock(self._given).acquire(timeout=_LOCK_PATIENCE_S)
        except Timeout:
            raise AlreadyRunningError(
                f"the service runs already at {self._given.gateway_url}, or is about to; stop it with: make stop"
            ) from None
        with held:
            before = state.read(self._given)
            self._scratch = jvm.make_scratch()
            self._write_state()
            try:
                if before:
                    await self._until_stopped(partial(_clear_leftovers, self._given, before))
                await self._until_stopped(partial(self._start, ready))
                await self._until_stopped(self._keep)
            finally:
                await self._end()

    async def _until_stopped(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do some work, and break it off when the service is to end."""
        if self._stopping.is_set():
            return
        working, stopping = asyncio.create_task(work()), asyncio.create_task(self._stopping.wait())
        await asyncio.wait([stopping, working], return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            working.cancel()
        stopping.cancel()
        with suppress(asyncio.CancelledError):
            await working

    async def _start(self, ready: Callable[[], None]) -> None:
        _check_ports(self._given)
        settled, _ = live.settle(live.read(self._given.run), index.read(self._given.model_store))
        self._children = [
            Child(make, self._given, self._report, self._write_state) for make in parts.plan(self._given, self._scratch)
        ]
        workers.clear(self._given.counts)
        for child in self._children:
            await child.start()
        live.write(self._given.run, settled)
        ready()

    async def _keep(self) -> None:
        commands = await control.serve(self._given, self._scratch, self._versions)
        try:
            await asyncio.gather(*map(self._keep_running, self._children))
        finally:
            commands.close()

    async def _keep_running(self, child: Child) -> None:
        """Start a part again whenever it is lost, for ever."""
        attempt = 0
        while True:
            begun = time.monotonic()
            self._report(f"{await child.lost()}; starting it again")
            if time.monotonic() - begun > _SETTLED_S:
                attempt = 0
            while child.pid is None:
                if attempt:
                    await asyncio.sleep(min(self._given.backoff * 2 ** (attempt - 1), _BACKOFF_LIMIT_S))
                attempt += 1
                begun = time.monotonic()
                try:
                    async with self._versions if child.part.name == parts.FRONTEND else asyncio.Lock():
                        await child.start_again()
                    self._report(f"{child.part.name} ready again after {time.monotonic() - begun:.1f} s")
                except ServingError as error:
                    self._report(f"{child.part.name}, attempt {attempt}: {error}")
                except Exception:
                    # A full disk, for one: it may have room again at the next attempt.
                    logger.exception("%s, attempt %d", child.part.name, attempt)

    async def _end(self) -> None:
        """Stop callers' side first, and the rest when the last request is answered."""
        for child in self._children:
            if child.part.name in (parts.FRONTDOOR, parts.BRIDGE):
                # They say from now on that the service is not ready.
                child.signal(signal.SIGUSR1)
        if self._children:
            await asyncio.sleep(self._given.drain_delay)
        for side, grace in ((True, _CALLERS_GRACE_S), (False, _GRACE_S)):
            await asyncio.gather(*(each.end(grace) for each in self._children if each.part.faces_callers == side))
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._given.key_file.unlink(missing_ok=True)
        workers.clear(self._given.counts)
        state.path(self._given).unlink(missing_ok=True)

    def _write_state(self) -> None:
        pids = {child.part.name: child.pid for child in self._children}
        try:
            state.write(self._given, State(os.getpid(), self._started, str(self._scratch), pids))
        except OSError as error:
            logger.warning("%s cannot be written: %s", state.path(self._given), error)


async def _clear_leftovers(given: Settings, before: State) -> None:
    """Wait until what a killed supervisor has left is gone: on Linux its parts have been told to end."""
    deadline = time.monotonic() + _LEFTOVERS_S
    while time.monotonic() < deadline and not all(ports.is_free(p.host, p.number) for p in given.ports):
        await asyncio.sleep(polling.INTERVAL_S)
    shutil.rmtree(before.scratch, ignore_errors=True)


def _check_ports(given: Settings) -> None:
    taken = [port for port in given.ports if not ports.is_free(port.host, port.number)]
    held = (f"port {port.number} ({port.name}) is in use by {ports.listener(port.number)}" for port in taken)
    if taken:
        variables = " and ".join(port.variable for port in taken)
        raise PortInUseError(f"{'; '.join(held)}: stop that, or set {variables}")


def run(given: Settings, report: Report, ready: Callable[[], None]) -> None:
    """Be the supervisor of one service until SIGTERM, SIGINT or SIGHUP.

    Args:
        given: the settings.
        report: told what is going on, whenever that changes.
        ready: called when everything is ready.

    Raises:
        ServingError: the service cannot be started; nothing is left running.
    """

    async def supervise() -> None:
        supervisor = Supervisor(given, report)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, supervisor.stop)
        await supervisor.run(ready)

    asyncio.run(supervise())


def main(descriptor: int) -> int:
    """Be the detached supervisor; the exit code.

    Args:
        descriptor: of the pipe to the command that started it, which reads lines of JSON until the start is over.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    starter = os.fdopen(descriptor, "w", buffering=1)

    def tell(**message: str) -> None:
        # The command closes its end when the start is over, or was killed.
        with suppress(OSError, ValueError):
            starter.write(json.dumps(message) + "\n")
            if "doing" not in message:
                starter.close()

    def report(doing: str) -> None:
        logger.info("%s", doing)
        tell(doing=doing)

    try:
        run(settings.read(), report, lambda: tell(done="ready"))
    except ServingError as error:
        logger.critical("%s", error)
        tell(error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
