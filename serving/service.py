"""Start, watch and stop the service: a short list of processes, each ready before the next one starts.

A start takes these steps, and ends what it has started when one of them fails or is interrupted::

    nobody else is at it ─► not running yet ─► live archives whole ─► ports free ─► each part: spawn, wait until ready

What is loaded is what ``run/live.json`` says (``serving/live.py``), and only if its digest is the one that the model
store's index has. Parts start in the order of ``parts`` and stop in the reverse one. The state is in
``run/service.json``, and any later command finds the processes again from there; ``serving/supervisor.py`` watches
them and starts again what has ended.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

from serving import archives as archive_files
from serving import (
    forking,
    gateway,
    gateway_reload,
    jvm,
    live,
    management,
    model_index,
    nginx,
    processes,
    worker_counts,
)
from serving.archives import Archive
from serving.errors import AlreadyRunningError, BusyError, PortInUseError, StartError, TokenError, UnreachableError
from serving.live import Live
from serving.management import Model
from serving.processes import ProcessId
from serving.readiness import FrontendProbe, last_lines
from serving.settings import COUNTS_VARIABLE, HOST, ROOT, Port, Settings

# Seconds that a part gets to stop by itself: TorchServe takes 2 to 4, and some 10 when it also writes a class cache.
_GRACE = 60.0

# The name of the part that loads archives, and of the one that its workers come from.
FRONTEND = "TorchServe"
FORK_SERVER = "fork server"
# Seconds in which it says something, if it can say anything.
_SAYS = 5.0

Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Part:
    """One process of the service.

    Attributes:
        name: what it is, in a word.
        command: program and arguments.
        environment: all its variables.
        folder: its working directory.
        output: file for its standard output and error.
        ports: where it listens.
        probe: called again and again while it starts: ``None`` when it is ready, else what is still going on;
            raises ``StartError`` when it never will be.
        stop_signal: what asks it to end with all requests answered.
    """

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    folder: Path
    output: Path
    ports: tuple[Port, ...]
    probe: Callable[[ProcessId], str | None]
    stop_signal: int = signal.SIGTERM

    def spawn(self, append: bool = False) -> ProcessId:
        """Start it; what its output file holds is lost or, with ``append``, kept."""
        return processes.spawn(
            *(self.name, self.command, self.environment, self.folder, self.output), append, self.stop_signal
        )


@dataclasses.dataclass(frozen=True)
class State:
    """What is running, as ``run/service.json`` holds it.

    Attributes:
        started: seconds since 1970.
        scratch: TorchServe's temporary files, removed at the stop.
        processes: in the order they were started.
    """

    started: float
    scratch: Path
    processes: tuple[ProcessId, ...] = ()

    @property
    def alive(self) -> bool:
        """At least one process runs."""
        return any(process.alive for process in self.processes)

    @property
    def whole(self) -> bool:
        """All processes that were started run."""
        return bool(self.processes) and all(process.alive for process in self.processes)


@dataclasses.dataclass(frozen=True)
class Status:
    """The service as it is now.

    Attributes:
        state: ``None`` when it is stopped.
        models: as the management API describes them; ``None`` when it does not answer.
    """

    state: State | None
    models: list[Model] | None

    @property
    def ready(self) -> bool:
        """Every process runs and every worker takes requests."""
        return (
            self.state is not None
            and self.state.whole
            and self.models is not None
            and all(model.ready for model in self.models)
        )


def parts(
    settings: Settings, archives: Sequence[Archive] | None, scratch: Path, record: Path | None = None
) -> list[Part]:
    """The service's processes in the order they start.

    Args:
        settings: where they listen and log.
        archives: what TorchServe is to load; ``None`` leaves it out.
        scratch: its folder for temporary files.
        record: write TorchServe's class cache there at the stop.
    """
    # Imports torch while TorchServe starts.
    planned = fork_server(settings, scratch)
    planned += [] if archives is None else [frontend(settings, archives, scratch, record)]
    return [*planned, _grpc_bridge(settings), _frontdoor(settings), _gateway(settings, scratch)]


def frontend(settings: Settings, archives: Sequence[Archive], scratch: Path, record: Path | None = None) -> Part:
    """TorchServe's frontend; the arguments are those of ``parts``."""
    batches = any(archive.batch_size > 1 for archive in archives)
    return Part(
        name=FRONTEND,
        command=jvm.command(settings, jvm.write_config(settings, archives), scratch, record, batches),
        environment=_environment(settings, scratch),
        folder=settings.run,
        output=settings.logs / "frontend.out",
        ports=(
            *(settings.inference, settings.management, settings.metrics),
            *(settings.ts_grpc, settings.ts_grpc_management),
        ),
        probe=_probe(settings, archives),
    )


def fork_server(settings: Settings, scratch: Path) -> list[Part]:
    """What the frontend's workers are forked from, if this system can; ``scratch`` is that of ``parts``."""
    if not forking.available():
        return []
    return [
        Part(
            name=FORK_SERVER,
            command=[sys.executable, str(forking.SERVER), str(forking.address(scratch))],
            # A worker that is forked differs in nothing from one that is started.
            environment=_environment(settings, scratch),
            folder=settings.run,
            output=settings.logs / "fork_server.log",
            ports=(),
            # A launcher that comes too early becomes a plain Python.
            probe=lambda _: None if forking.listens(scratch) else "starting the fork server",
        )
    ]


def _environment(settings: Settings, scratch: Path) -> dict[str, str]:
    return {**jvm.environment(scratch), COUNTS_VARIABLE: str(settings.counts)}


def _probe(settings: Settings, archives: Sequence[Archive]) -> Callable[[ProcessId], str | None]:
    frontend = FrontendProbe(settings, archives)

    def look(process: ProcessId) -> str | None:
        doing = frontend(process)
        # A frontend that starts again has other keys than the gateway, which may run already, knows. They are there
        # before its workers are, and the gateway is to know them by the time these are ready.
        try:
            gateway_reload.apply(settings, live.read(settings.run), wait=False)
        except TokenError:
            if doing is None:
                raise
        return doing

    return look


def _grpc_bridge(settings: Settings) -> Part:
    return Part(
        name="gRPC bridge",
        command=[
            *(sys.executable, "-m", "serving.grpc_bridge", "--port", str(settings.grpc.number)),
            *("--inference", settings.inference.url, "--management", settings.management.url),
        ],
        environment=dict(os.environ),
        folder=ROOT,
        output=settings.logs / "grpc_bridge.log",
        ports=(settings.grpc,),
        probe=lambda _: None if processes.listens(HOST, settings.grpc.number) else "starting the gRPC bridge",
    )


def _frontdoor(settings: Settings) -> Part:
    return Part(
        name="front door",
        command=[
            *(sys.executable, "-m", "serving.frontdoor", "--port", str(settings.frontdoor.number)),
            *("--inference", settings.inference.url, "--management", settings.management.url),
        ],
        environment=dict(os.environ),
        folder=ROOT,
        output=settings.logs / "frontdoor.log",
        ports=(settings.frontdoor,),
        probe=lambda _: None if processes.listens(HOST, settings.frontdoor.number) else "starting the front door",
    )


def _gateway(settings: Settings, scratch: Path) -> Part:
    program = nginx.find(settings.nginx)
    return Part(
        name="gateway",
        command=gateway.command(program, gateway.write_config(settings, program, scratch)),
        environment=dict(os.environ),
        folder=settings.run,
        output=settings.logs / "gateway.log",
        ports=(settings.gateway, settings.gateway_status),
        probe=lambda _: None if processes.listens(HOST, settings.gateway.number) else "starting the gateway",
        # SIGTERM would break off what nginx is answering.
        stop_signal=signal.SIGQUIT,
    )


def start(settings: Settings, report: Report, record: Path | None = None) -> tuple[State, list[Archive]]:
    """Start everything and wait until it is ready.

    Args:
        settings: where to listen and keep files.
        report: told what is going on, whenever that changes.
        record: write TorchServe's class cache there at the stop.

    Returns:
        What runs now, and the archives it serves.

    Raises:
        BusyError, AlreadyRunningError, ArchiveError, StateError, PortInUseError: nothing was started.
        StartError: a part did not become ready; everything is stopped again.
    """
    for folder in (settings.run, settings.logs):
        folder.mkdir(parents=True, exist_ok=True)
    with _lock(settings, timeout=0):
        before = _read_state(settings)
        if before and before.whole:
            raise AlreadyRunningError(f"the service runs already at {settings.inference.url}; stop it with: make stop")
        if before:
            # What is left of a service that lost a process, or of a start that was killed.
            _end(settings, before)
        settled, archives = live_archives(settings, report)
        state = State(time.time(), jvm.make_scratch())
        _write_state(settings, state)
        try:
            planned = parts(settings, archives, state.scratch, record)
            _check_ports(planned)
            for part in planned:
                process = part.spawn()
                state = dataclasses.replace(state, processes=(*state.processes, process))
                _write_state(settings, state)
                _await(part, process, report, settings.start_timeout)
            live.write(settings.run, settled)
        except BaseException:
            # Ctrl-C too.
            _end(settings, state)
            raise
    return state, archives


def live_archives(settings: Settings, report: Report) -> tuple[dict[str, Live], list[Archive]]:
    """What a start, or a restart of the frontend, is to load: the live versions, whole and as they were packed.

    Args:
        settings: where model store and state are.
        report: told of archives that are left out.

    Returns:
        The state by model, and the archives; of each model the default version first.

    Raises:
        ArchiveError: the model store has none, or one that is live is missing or not what was packed.
        StateError: ``live.json`` cannot be understood.
    """
    listed = model_index.read(settings.model_store)
    for path in model_index.unlisted(settings.model_store, listed):
        report(f"{path} is left out: {model_index.NAME} does not list it, make archive would")
    settled, chosen = live.settle(live.read(settings.run), listed)
    return settled, [archive_files.read_listed(entry) for entry in chosen]


def stop(settings: Settings) -> bool:
    """Stop everything and remove what it left; nothing happens where nothing runs.

    Returns:
        Whether anything was running.

    Raises:
        BusyError: another command did not finish in time.
    """
    if not settings.run.is_dir():
        return False
    with _lock(settings, timeout=settings.start_timeout + _GRACE):
        state = _read_state(settings)
        return state is not None and _end(settings, state)


def status(settings: Settings) -> Status:
    """What runs, and what TorchServe says of its models."""
    state = _read_state(settings)
    if state is None or not state.alive:
        return Status(None, None)
    try:
        return Status(state, management.of_service(settings).models())
    except UnreachableError:
        return Status(state, None)


def add(settings: Settings, process: ProcessId) -> None:
    """Make a process one of the service's, to be stopped before the others."""
    with _lock(settings, timeout=_GRACE):
        state = _read_state(settings)
        if state is None:
            # Stopped by another command in between.
            processes.stop(process, _GRACE)
        else:
            _write_state(settings, dataclasses.replace(state, processes=(*state.processes, process)))


def ended(settings: Settings) -> list[str] | None:
    """The names of the processes that have ended by themselves; ``None`` when the service is stopped."""
    state = _read_state(settings)
    return None if state is None else [process.name for process in state.processes if not process.alive]


def answers(settings: Settings) -> bool:
    """Whether TorchServe's frontend answers, whatever it says, within some seconds."""
    with requests.Session() as session:
        # A proxy from the environment cannot reach this machine's loopback address.
        session.trust_env = False
        try:
            session.get(f"{settings.inference.url}/ping", timeout=_SAYS)
        except requests.RequestException:
            return False
    return True


def kill_frontend(settings: Settings) -> None:
    """End TorchServe's frontend, which does not do so when it is asked."""
    state = _read_state(settings)
    for process in state.processes if state else ():
        if process.name == FRONTEND:
            processes.stop(process, 0)


def revive(settings: Settings, report: Report) -> list[str]:
    """Start again the parts that have ended, TorchServe with what is live now, and wait until they are ready.

    Args:
        settings: as for ``start``.
        report: told what is going on, whenever that changes.

    Returns:
        Their names; none if nothing has ended, or if the service is stopped.

    Raises:
        BusyError, ArchiveError, StateError, PortInUseError: nothing was started.
        StartError: a part did not become ready; it is stopped again.
    """
    revived = []
    with _lock(settings, timeout=settings.start_timeout + _GRACE):
        state = _read_state(settings)
        gone = [process.name for process in state.processes if not process.alive] if state else []
        if state is None or not gone:
            return []
        archives = live_archives(settings, report)[1] if FRONTEND in gone else None
        for part in parts(settings, archives, state.scratch):
            if part.name not in gone:
                continue
            report(f"{part.name} ended by itself; starting it again")
            (before,) = [process for process in state.processes if process.name == part.name]
            # Its children may have outlived it, and hold what it needs.
            processes.stop(before, 0)
            _check_ports([part])
            process = part.spawn(append=True)
            state = dataclasses.replace(
                state, processes=tuple(process if each is before else each for each in state.processes)
            )
            _write_state(settings, state)
            try:
                _await(part, process, report, settings.start_timeout)
            except BaseException:
                processes.stop(process, _GRACE)
                raise
            revived.append(part.name)
    return revived


def prepare(settings: Settings, report: Report) -> Path:
    """Make TorchServe's class cache, which brings it up half a second sooner; one that is there is kept.

    The service is started once to learn which classes it needs; Java writes the cache when it stops.

    Returns:
        The cache.

    Raises:
        ServingError: as ``start``, or Java wrote none.
    """
    cache = jvm.cache_path()
    if cache.is_file():
        return cache
    cache.parent.mkdir(parents=True, exist_ok=True)
    for stale in cache.parent.glob("fashion-serve-*.aot*"):
        stale.unlink()
    fresh = cache.with_suffix(f".aot-{os.getpid()}")
    start(settings, report, record=fresh)
    report("writing the class cache")
    stop(settings)
    if not fresh.is_file():
        raise StartError(f"Java wrote no class cache; the reason is in {settings.logs / 'frontend.out'}")
    fresh.replace(cache)
    return cache


def _await(part: Part, process: ProcessId, report: Report, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    said = None
    while (doing := part.probe(process)) is not None:
        if doing != said:
            report(doing)
            said = doing
        if not process.alive:
            raise StartError(f"{part.name} ended while starting; the end of {part.output}:\n{last_lines(part.output)}")
        if time.monotonic() > deadline:
            raise StartError(
                f"{part.name} was not ready after {timeout:g} s ({doing}); see the logs in {part.output.parent}"
            )
        time.sleep(processes.POLL)


def _check_ports(planned: Sequence[Part]) -> None:
    taken = [port for part in planned for port in part.ports if not processes.port_is_free(HOST, port.number)]
    if taken:
        raise PortInUseError(
            "; ".join(
                f"port {port.number} ({port.name}) is in use by {processes.listener(port.number)}: "
                f"stop that, or set {port.variable}"
                for port in taken
            )
        )


def _end(settings: Settings, state: State) -> bool:
    found = False
    for process in reversed(state.processes):
        found |= processes.stop(process, _GRACE)
    shutil.rmtree(state.scratch, ignore_errors=True)
    settings.key_file.unlink(missing_ok=True)
    worker_counts.clear(settings.counts)
    _state_path(settings).unlink(missing_ok=True)
    return found


def _state_path(settings: Settings) -> Path:
    return settings.run / "service.json"


def _read_state(settings: Settings) -> State | None:
    try:
        raw = json.loads(_state_path(settings).read_text())
    except FileNotFoundError:
        return None
    return State(raw["started"], Path(raw["scratch"]), tuple(ProcessId(**process) for process in raw["processes"]))


def _write_state(settings: Settings, state: State) -> None:
    path = _state_path(settings)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({**dataclasses.asdict(state), "scratch": str(state.scratch)}, indent=2) + "\n")
    fresh.replace(path)


@contextmanager
def _lock(settings: Settings, timeout: float) -> Iterator[None]:
    """One command at a time; the system lets go of the lock however its holder ends."""
    path = settings.run / "lock"
    with path.open("a+") as file:

        def locked() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        if not processes.wait_until(locked, timeout):
            raise BusyError(f"another command is starting or stopping the service (it holds {path}); try again then")
        yield
