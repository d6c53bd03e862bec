"""The supervisor: the parent process of all parts of the service.

    python -m serving.supervisor.supervisor DESCRIPTOR      run by `python -m serving start`, which reads from the pipe

    lock, free ports ─► scratch ─► each part in order: spawn, wait until ready ─► ready
                                 │
         SIGTERM, SIGINT ◄───────┤  a part ends or hangs ─► kill its process group ─► back off, restart it (restarts.py)
              │
              └─► /readyz answers 503 ─► drain delay ─► the callers' side answers and ends ─► the others in parallel

On Linux the parts end when the supervisor is killed (``child.py``). A restarted TorchServe loads the versions that are
live at that time (``run/live.json``). Rollouts run in the supervisor, so that none runs while TorchServe starts. Their
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

from serving import Report, polling, ports
from serving.errors import AlreadyRunningError, PortInUseError, ServingError
from serving.gateway import config
from serving.settings import Settings
from serving.settings import read as read_settings
from serving.sidecars.metrics import workers
from serving.store import index, live
from serving.supervisor import control, parts, restarts, state
from serving.supervisor.child import Child
from serving.supervisor.state import State
from serving.torchserve import jvm

logger = logging.getLogger("serving.supervisor")

# nginx and the gRPC bridge answer their open requests within 75 s (nginx's worker_shutdown_timeout).
_CALLERS_GRACE_S = 80.0
# TorchServe ends within 2 to 4 s.
_GRACE_S = 15.0
# Linux ends the parts of a killed supervisor at once (child.py); the rest is for a busy machine.
_LEFTOVERS_TIMEOUT_S = 15.0
# Other commands take the lock for a moment, to check whether the service runs.
_LOCK_TIMEOUT_S = 1.0


class Supervisor:
    """Starts the parts, restarts them, and stops them.

    Args:
        settings: of the service.
        report: receives the progress.
    """

    def __init__(self, settings: Settings, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._children: list[Child] = []
        self._started = time.monotonic()
        self._scratch = Path()
        self._stopping = asyncio.Event()
        # Held by a rollout, and by a restart of TorchServe.
        self._versions = asyncio.Lock()

    def stop(self) -> None:
        """Make ``run`` stop the service and return."""
        self._stopping.set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Start all parts, and stop them when ``stop`` is called.

        Args:
            ready: called when all parts are ready.

        Raises:
            ServingError: the service cannot be started; nothing is left running.
        """
        self._settings.run.mkdir(parents=True, exist_ok=True)
        try:
            held = state.lock(self._settings).acquire(timeout=_LOCK_TIMEOUT_S)
        except Timeout:
            raise AlreadyRunningError(
                f"the service at {self._settings.gateway_url} is already running, or is starting; stop it: make stop"
            ) from None
        with held:
            before = state.read(self._settings)
            self._scratch = jvm.make_scratch()
            self._write_state()
            try:
                if before:
                    await self._until_stopped(partial(_clear_leftovers, self._settings, before))
                await self._until_stopped(partial(self._start, ready))
                await self._until_stopped(self._keep)
            finally:
                await self._end()

    async def _until_stopped(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do some work, and cancel it when ``stop`` is called."""
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
        _check_ports(self._settings)
        listed = index.read(self._settings.model_store, self._settings.store_key)
        settled, _ = live.settle(live.read(self._settings.run), listed)
        plan = parts.plan(self._settings, self._scratch)
        self._children = [Child(make, self._settings, self._report, self._write_state) for make in plan]
        workers.clear(self._settings.counts)
        for child in self._children:
            await child.start()
        live.write(self._settings.run, settled)
        ready()

    async def _keep(self) -> None:
        commands = await control.serve(self._settings, self._scratch, self._versions)
        keeping = [
            asyncio.create_task(
                restarts.keep_running(
                    child,
                    self._settings.backoff,
                    self._report,
                    self._versions if child.part.name == parts.FRONTEND else None,
                )
            )
            for child in self._children
        ]
        try:
            await asyncio.gather(*keeping)
        finally:
            commands.close()
            for task in keeping:
                task.cancel()
            # A canceled restart kills the process that it has started. A canceled ``gather`` does not wait for that.
            await asyncio.wait(keeping)

    async def _end(self) -> None:
        """Stop the parts that face callers, and the others when the last request is answered."""
        for child in self._children:
            if child.part.name in (parts.FRONTDOOR, parts.BRIDGE):
                # Their readiness answers are negative from now on.
                child.signal(signal.SIGUSR1)
        if self._children:
            await asyncio.sleep(self._settings.drain_delay)
        for side, grace in ((True, _CALLERS_GRACE_S), (False, _GRACE_S)):
            await asyncio.gather(*(each.end(grace) for each in self._children if each.part.faces_callers == side))
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._settings.key_file.unlink(missing_ok=True)
        workers.clear(self._settings.counts)
        state.path(self._settings).unlink(missing_ok=True)

    def _write_state(self) -> None:
        pids = {child.part.name: child.pid for child in self._children}
        ready = [child.part.name for child in self._children if child.ready]
        try:
            state.write(self._settings, State(os.getpid(), self._started, str(self._scratch), pids, ready))
        except OSError as error:
            logger.warning("cannot write %s: %s", state.path(self._settings), error)


async def _clear_leftovers(settings: Settings, before: State) -> None:
    """Wait for the parts of a killed supervisor, which Linux has told to end, and remove its scratch folder."""
    deadline = time.monotonic() + _LEFTOVERS_TIMEOUT_S
    # Ports have no event to wait for.
    while time.monotonic() < deadline and not all(ports.is_free(p.host, p.number) for p in settings.ports):  # noqa: ASYNC110
        await asyncio.sleep(polling.INTERVAL_S)
    shutil.rmtree(before.scratch, ignore_errors=True)


def _check_ports(settings: Settings) -> None:
    taken = [
        port
        for port in settings.ports
        for hosts in [config.hosts(settings) if port in (settings.gateway, settings.grpc) else [port.host]]
        if not all(ports.is_free(host, port.number) for host in hosts)
    ]
    held = (f"port {port.number} ({port.name}) is in use by {ports.listener(port.number)}" for port in taken)
    if taken:
        variables = " and ".join(port.variable for port in taken)
        raise PortInUseError(f"{'; '.join(held)}; stop that process, or set {variables}")


def run(settings: Settings, report: Report, ready: Callable[[], None]) -> None:
    """Supervise one service until SIGTERM, SIGINT, or SIGHUP.

    Args:
        settings: of the service.
        report: receives the progress.
        ready: called when all parts are ready.

    Raises:
        ServingError: the service cannot be started; nothing is left running.
    """

    async def supervise() -> None:
        supervisor = Supervisor(settings, report)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, supervisor.stop)
        await supervisor.run(ready)

    asyncio.run(supervise())


def main(descriptor: int) -> int:
    """Run as the detached supervisor; return the exit code.

    Args:
        descriptor: of the pipe to ``python -m serving start``, which reads lines of JSON until the start is done.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    starter = os.fdopen(descriptor, "w", buffering=1)

    def send(**message: str) -> None:
        # The command closes its end when the start is done. It may also have been killed.
        with suppress(OSError, ValueError):
            starter.write(json.dumps(message) + "\n")
            if "status" not in message:
                starter.close()

    def report(status: str) -> None:
        logger.info("%s", status)
        send(status=status)

    try:
        run(read_settings(), report, lambda: send(done="ready"))
    except ServingError as error:
        logger.critical("%s", error)
        send(error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
