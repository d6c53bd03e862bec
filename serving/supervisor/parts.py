"""The parts of the service: how each process is started, when it is ready, and whether it still answers.

    fork server ─► TorchServe's frontend ─► gRPC bridge ─► front door ─► gateway

In this order they start; ``serving/supervisor/supervisor.py`` starts and watches them.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import httpx

from serving import Report, loopback, ports
from serving.errors import TokenError
from serving.gateway import config, nginx_binary, reload
from serving.settings import ROOT, Port, Settings
from serving.store import archives as archive_files
from serving.store import index, live
from serving.store.archives import Archive
from serving.torchserve import forking, jvm
from serving.torchserve.readiness import FrontendProbe

FORK_SERVER = "fork server"
FRONTEND = "TorchServe"
BRIDGE = "gRPC bridge"
FRONTDOOR = "front door"
GATEWAY = "gateway"

# Timeout of one liveness request.
LIVENESS_TIMEOUT_S = 5.0


@dataclasses.dataclass(frozen=True)
class Part:
    """One process of the service.

    Attributes:
        name: of the part.
        command: program and arguments.
        environment: all its variables.
        folder: its working directory.
        output: file for its standard output and error.
        probe: called repeatedly while it starts: ``None`` when it is ready, else what is still going on;
            raises ``StartError`` when it never will be.
        answers: whether it answers a request now, within ``LIVENESS_TIMEOUT_S``.
        stop_signal: asks it to end with all requests answered.
        death_signal: what it is sent when the supervisor is killed (Linux).
        faces_callers: it stops before the others, when its last request is answered.
    """

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    folder: Path
    output: Path
    probe: Callable[[], str | None]
    answers: Callable[[], bool]
    stop_signal: int = signal.SIGTERM
    death_signal: int = signal.SIGKILL
    faces_callers: bool = False


def plan(settings: Settings, scratch: Path) -> list[Callable[[Report], Part]]:
    """What makes each part, in the order of their starts; it is called anew for each start of the part.

    Args:
        settings: of the service.
        scratch: private folder for sockets and what TorchServe unpacks, with a short path.
    """
    return [
        *([lambda _: _fork_server(settings, scratch)] * forking.available(settings)),
        lambda report: _frontend(settings, live_archives(settings, report), scratch),
        lambda _: _bridge(settings),
        lambda _: _frontdoor(settings),
        lambda _: _gateway(settings, scratch),
    ]


def live_archives(settings: Settings, report: Report) -> list[Archive]:
    """What a start, or a restart of the frontend, is to load: the live versions, whole and as they were packed.

    Args:
        settings: where model store and state are.
        report: told of archives that are left out.

    Returns:
        The archives; of each model the default version first.

    Raises:
        ArchiveError: the model store has none, or one that is live is missing or not what was packed.
        StateError: ``live.json`` cannot be understood.
    """
    listed = index.read(settings.model_store)
    for path in index.unlisted(settings.model_store, listed):
        report(f"{path} is left out: {index.NAME} does not list it, make archive would")
    _, chosen = live.settle(live.read(settings.run), listed)
    return [archive_files.read_listed(entry) for entry in chosen]


def _fork_server(settings: Settings, scratch: Path) -> Part:
    return Part(
        name=FORK_SERVER,
        command=[sys.executable, str(forking.SERVER), str(forking.address(scratch))],
        # A forked worker differs in nothing from one that is started.
        environment=jvm.environment(settings, scratch),
        folder=settings.run,
        output=settings.log("fork_server.log"),
        # A launcher that finds no server becomes a plain Python.
        probe=lambda: None if forking.listens(scratch) else "starting the fork server",
        answers=lambda: forking.answers(scratch, LIVENESS_TIMEOUT_S),
        # It ends its workers then.
        death_signal=signal.SIGTERM,
    )


def _frontend(settings: Settings, archives: Sequence[Archive], scratch: Path) -> Part:
    batches = any(archive.batch_size > 1 for archive in archives)
    return Part(
        name=FRONTEND,
        command=jvm.command(settings, jvm.write_config(settings, archives), scratch, batches=batches),
        environment=jvm.environment(settings, scratch),
        folder=settings.run,
        output=settings.log("frontend.out"),
        probe=_probe(settings, archives),
        answers=lambda: _http_answers(f"{settings.inference.url}/ping"),
    )


def _probe(settings: Settings, archives: Sequence[Archive]) -> Callable[[], str | None]:
    frontend = FrontendProbe(settings, archives)

    def look() -> str | None:
        doing = frontend()
        # A frontend that starts again makes other keys than the running gateway has. They are there before its workers
        # are, and the gateway must have them by the time these are ready.
        try:
            reload.apply(settings, live.read(settings.run), wait=False)
        except TokenError:
            if doing is None:
                raise
        return doing

    return look


def _bridge(settings: Settings) -> Part:
    return Part(
        name=BRIDGE,
        command=[sys.executable, "-m", "serving.sidecars.grpc.server"],
        environment=dict(os.environ),
        folder=ROOT,
        output=settings.log("grpc_bridge.log"),
        probe=_listens(settings.grpc_bridge, f"starting the {BRIDGE}"),
        answers=lambda: _grpc_answers(settings),
        faces_callers=True,
    )


def _frontdoor(settings: Settings) -> Part:
    return Part(
        name=FRONTDOOR,
        command=[sys.executable, "-m", "serving.sidecars.frontdoor"],
        environment=dict(os.environ),
        folder=ROOT,
        output=settings.log("frontdoor.log"),
        probe=_listens(settings.frontdoor, f"starting the {FRONTDOOR}"),
        answers=lambda: _http_answers(f"{settings.frontdoor.url}/v2"),
    )


def _gateway(settings: Settings, scratch: Path) -> Part:
    program, status = nginx_binary.find(settings.nginx), settings.gateway_status
    return Part(
        name=GATEWAY,
        command=config.command(program, config.write_config(settings, program, scratch)),
        environment=dict(os.environ),
        folder=settings.run,
        output=settings.log("gateway.log"),
        probe=_listens(status, f"starting the {GATEWAY}"),
        answers=lambda: _http_answers(f"{settings.gateway_status.url}/status"),
        # SIGTERM breaks off what nginx is answering; its workers outlive a master that is killed.
        stop_signal=signal.SIGQUIT,
        death_signal=signal.SIGTERM,
        faces_callers=True,
    )


def _listens(port: Port, doing: str) -> Callable[[], str | None]:
    return lambda: None if ports.listens(port.host, port.number) else doing


def _http_answers(url: str) -> bool:
    """Whether a server answers, with any status."""
    with loopback.client(LIVENESS_TIMEOUT_S) as client, suppress(httpx.HTTPError):
        client.get(url)
        return True
    return False


def _grpc_answers(settings: Settings) -> bool:
    """Whether the bridge answers gRPC's health service, which is one HTTP/2 request."""
    headers = {"Content-Type": "application/grpc", "TE": "trailers"}
    with loopback.client(LIVENESS_TIMEOUT_S, http2=True) as client, suppress(httpx.HTTPError):
        # An empty message, which asks for the whole server: no compression, length 0.
        client.post(f"{settings.grpc_bridge.url}/grpc.health.v1.Health/Check", content=bytes(5), headers=headers)
        return True
    return False
