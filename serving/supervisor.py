"""The supervisor: the parent of all parts of the service, from the first start to the last end.

    python -m serving.supervisor REPORT      detached, as `python -m serving start` runs it; REPORT is a descriptor

    lock ─► scratch folder ─► each part in order: spawn, wait until ready ─► ready
                                 │
         SIGTERM, SIGINT ◄───────┤  a part ends, or answers nothing for long ─► kill its group ─► back off ─► start it
              │
              └─► /readyz says 503 ─► drain delay ─► callers' side ends, its requests answered ─► the rest in parallel

``run/supervisor.lock`` is held while it lives; ``run/service.json`` has its pid and those of the parts. On Linux the
parts end when the supervisor is killed (``PR_SET_PDEATHSIG``). What TorchServe loads when it starts again is what is
live then (``run/live.json``). Rollouts run here, so that none of them meets a start of TorchServe: commands come over
a Unix socket in the scratch folder (``serving/control.py``).
"""

from __future__ import annotations

import asyncio
import ctypes
import dataclasses
import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from serving import control, files, jvm, live, model_index, parts, processes, settings, worker_counts
from serving.errors import AlreadyRunningError, PortInUseError, ServingError, StartError
from serving.parts import Part, Report
from serving.readiness import last_lines
from serving.settings import Settings

logger = logging.getLogger("serving.supervisor")

# Longest pause between two attempts to start a part.
_BACKOFF_LIMIT_S = 60.0
# Seconds that a part must run for its next failure to be a first one.
_SETTLED_S = 60.0
# Pause between two liveness requests.
_LIVENESS_PAUSE_S = 5.0
# nginx and the bridge finish what they answer within the 75 s of nginx's worker_shutdown_timeout.
_CALLERS_GRACE_S = 80.0
# TorchServe takes 2 to 4.
_GRACE_S = 15.0
# What a killed service has left is gone within this time, as is a look at the lock by another command.
_LEFTOVERS_S = 15.0
_LOCK_PATIENCE_S = 1.0
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclasses.dataclass(frozen=True)
class State:
    """What is running, as ``run/service.json`` holds it.

    Attributes:
        pid: the supervisor.
        started: when, by the monotonic clock, in seconds.
        scratch: TorchServe's temporary files and the control socket, removed at the end.
        processes: pid of each part; ``None`` while it is not running.
    """

    pid: int
    started: float
    scratch: Path
    processes: dict[str, int | None]


def lock(settings: Settings) -> FileLock:
    """The lock that a supervisor holds."""
    return FileLock(settings.run / "supervisor.lock")


def state_path(settings: Settings) -> Path:
    """The file of ``State``."""
    return settings.run / "service.json"


def read_state(settings: Settings) -> State | None:
    """The state that the last supervisor wrote; ``None`` where there is none, or none that can be read."""
    try:
        raw = json.loads(state_path(settings).read_text())
        return State(raw["pid"], raw["started"], Path(raw["scratch"]), raw["processes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _Child:
    """One part and its process.

    Args:
        make: makes the part, anew for each start.
        given: the settings.
        report: told what is going on.
        changed: called when its process starts or ends.
    """

    def __init__(
        self, make: Callable[[Report], Part], given: Settings, report: Report, changed: Callable[[], None]
    ) -> None:
        self._make = make
        self._given = given
        self._report = report
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self.part = make(report)

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process and running else None

    async def start(self) -> None:
        """Start it and wait until it is ready; what is not ready in the end is ended again.

        Raises:
            ServingError: it cannot be started, ended, or was not ready in time.
        """
        part, parent = self.part, os.getpid()
        part.output.parent.mkdir(parents=True, exist_ok=True)
        with part.output.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *part.command,
                env=part.environment,
                cwd=part.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                # Neither Ctrl-C nor a closed terminal reaches it, and its group can be killed as a whole.
                start_new_session=True,
                preexec_fn=lambda: _end_with(parent, part.death_signal),
            )
        self._changed()
        try:
            await self._become_ready()
        except BaseException:
            await self.end(0)
            raise

    async def start_again(self) -> None:
        """As ``start``, from a part that is made anew."""
        self.part = await asyncio.to_thread(self._make, self._report)
        await self.start()

    async def lost(self) -> str:
        """Wait until it has ended, or has been silent for too long and was killed; what happened, in words."""
        silent = asyncio.create_task(self._silent())
        ended = asyncio.create_task(self._wait())
        try:
            await asyncio.wait([silent, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            silent.cancel()
            ended.cancel()
        outcome = (
            f"ended by itself ({_outcome(ended.result())})"
            if ended.done()
            else f"has not answered for {self._given.hang_timeout:g} s; ended it"
        )
        await self.end(0)
        return f"{self.part.name} {outcome}"

    async def end(self, grace: float) -> None:
        """Ask it to end, and kill it and its group after ``grace`` seconds."""
        if self.pid is not None and grace:
            os.kill(self.pid, self.part.stop_signal)
            # What is suspended takes the signal when it goes on.
            self._signal_group(signal.SIGCONT)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wait(), grace)
        self._kill_group()
        if self._process is not None:
            await self._wait()
        self._changed()

    async def _become_ready(self) -> None:
        begun, said = time.monotonic(), None
        timeout, pid = self._given.start_timeout, self.pid
        assert pid is not None
        while (doing := await asyncio.to_thread(self.part.probe, pid)) is not None:
            if doing != said:
                self._report(doing)
                said = doing
            name, output = self.part.name, self.part.output
            if self.pid is None:
                raise StartError(f"{name} ended while starting; the end of {output}:\n{last_lines(output)}")
            if time.monotonic() - begun > timeout:
                raise StartError(f"{name} was not ready after {timeout:g} s ({doing}); see the logs in {output.parent}")
            await asyncio.sleep(processes.POLL)

    async def _silent(self) -> None:
        """Return when it has answered nothing for the hang timeout."""
        answered = time.monotonic()
        while time.monotonic() - answered <= self._given.hang_timeout:
            await asyncio.sleep(min(_LIVENESS_PAUSE_S, self._given.hang_timeout))
            if await asyncio.to_thread(self.part.answers):
                answered = time.monotonic()

    async def _wait(self) -> int:
        assert self._process is not None
        return await self._process.wait()

    def _kill_group(self) -> None:
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: int) -> None:
        # macOS permits no signal to a group that has just ended.
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


class Supervisor:
    """Starts the parts, keeps them running, and stops them.

    Args:
        given: the settings.
        report: told what is going on, whenever that changes.
    """

    def __init__(self, given: Settings, report: Report) -> None:
        self._given = given
        self._report = report
        self._children: list[_Child] = []
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
        with _locked(self._given):
            before = read_state(self._given)
            self._scratch = jvm.make_scratch()
            self._write_state()
            try:
                if before:
                    await _clear_leftovers(self._given, before)
                await self._until_stopped(self._start(ready))
                if not self._stopping.is_set():
                    await self._until_stopped(self._keep())
            finally:
                await self._end()

    async def _until_stopped(self, work: Awaitable[None]) -> None:
        working, stopping = asyncio.ensure_future(work), asyncio.create_task(self._stopping.wait())
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not working.done():
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working
        elif error := working.exception():
            raise error

    async def _start(self, ready: Callable[[], None]) -> None:
        settled, _ = live.settle(live.read(self._given.run), model_index.read(self._given.model_store))
        makers = parts.plan(self._given, self._scratch)
        self._children = [_Child(make, self._given, self._report, self._write_state) for make in makers]
        _check_ports([child.part for child in self._children])
        worker_counts.clear(self._given.counts)
        for child in self._children:
            await child.start()
        live.write(self._given.run, settled)
        ready()

    async def _keep(self) -> None:
        commands = await control.serve(self._given, self._scratch, self._versions)
        try:
            await asyncio.gather(*(self._keep_running(child) for child in self._children))
        finally:
            commands.close()

    async def _keep_running(self, child: _Child) -> None:
        """Start a part again whenever it is lost, for ever."""
        failures = 0
        while True:
            begun = time.monotonic()
            self._report(f"{await child.lost()}; starting it again")
            if time.monotonic() - begun > _SETTLED_S:
                failures = 0
            while True:
                if failures:
                    await asyncio.sleep(min(self._given.backoff * 2 ** (failures - 1), _BACKOFF_LIMIT_S))
                failures += 1
                again = time.monotonic()
                try:
                    await self._start_again(child)
                    break
                except ServingError as error:
                    self._report(f"{child.part.name}, attempt {failures}: {error}")
                except Exception:
                    # A full disk, for one: it may have room again at the next attempt.
                    logger.exception("%s, attempt %d", child.part.name, failures)
            self._report(f"{child.part.name} ready again after {time.monotonic() - again:.1f} s")

    async def _start_again(self, child: _Child) -> None:
        if child.part.name != parts.FRONTEND:
            await child.start_again()
            return
        async with self._versions:
            await child.start_again()

    async def _end(self) -> None:
        """Stop callers' side first, and the rest when the last request is answered."""
        sides = [child for child in self._children if child.part.name in (parts.FRONTDOOR, parts.BRIDGE)]
        for child in sides:
            if child.pid is not None:
                # They say from now on that the service is not ready.
                os.kill(child.pid, signal.SIGUSR1)
        if sides:
            await asyncio.sleep(self._given.drain_delay)
        for faces, grace in ((True, _CALLERS_GRACE_S), (False, _GRACE_S)):
            ending = [child.end(grace) for child in self._children if child.part.faces_callers == faces]
            await asyncio.gather(*ending)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._given.key_file.unlink(missing_ok=True)
        worker_counts.clear(self._given.counts)
        state_path(self._given).unlink(missing_ok=True)

    def _write_state(self) -> None:
        pids = {child.part.name: child.pid for child in self._children}
        state = State(os.getpid(), self._started, self._scratch, pids)
        text = json.dumps({**dataclasses.asdict(state), "scratch": str(state.scratch)}, indent=2) + "\n"
        try:
            files.write_atomically(state_path(self._given), text)
        except OSError as error:
            logger.warning("%s cannot be written: %s", state_path(self._given), error)


@contextmanager
def _locked(given: Settings) -> Iterator[None]:
    given.run.mkdir(parents=True, exist_ok=True)
    held = lock(given)
    try:
        # Other commands look at the lock by taking it for a moment.
        held.acquire(timeout=_LOCK_PATIENCE_S)
    except Timeout:
        raise AlreadyRunningError(
            f"the service runs already at {given.gateway_url}, or is about to; stop it with: make stop"
        ) from None
    try:
        yield
    finally:
        held.release()


async def _clear_leftovers(given: Settings, before: State) -> None:
    """Wait until what a killed supervisor has left is gone: on Linux its parts have been told to end."""
    deadline = time.monotonic() + _LEFTOVERS_S
    while time.monotonic() < deadline and not all(
        processes.port_is_free(port.host, port.number) for port in given.ports
    ):
        await asyncio.sleep(processes.POLL)
    shutil.rmtree(before.scratch, ignore_errors=True)


def _check_ports(planned: list[Part]) -> None:
    ports = [port for part in planned for port in part.ports]
    taken = [port for port in ports if not processes.port_is_free(port.host, port.number)]
    if taken:
        raise PortInUseError(
            "; ".join(
                f"port {port.number} ({port.name}) is in use by {processes.listener(port.number)}: "
                f"stop that, or set {port.variable}"
                for port in taken
            )
        )


def _end_with(parent: int, number: int) -> None:
    """In a new child: have the system send it a signal when the supervisor ends (prctl(2))."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os._exit(1)


def _outcome(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def run(given: Settings, report: Report, ready: Callable[[], None]) -> None:
    """Be the supervisor of one service until SIGTERM or SIGINT.

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
        # The command may have been killed.
        with suppress(OSError, ValueError):
            print(json.dumps(message), file=starter, flush=True)

    def report(doing: str) -> None:
        logger.info("%s", doing)
        tell(doing=doing)

    def ready() -> None:
        tell(done="ready")
        with suppress(OSError):
            starter.close()

    try:
        run(settings.read(), report, ready)
    except ServingError as error:
        logger.critical("%s", error)
        tell(error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
