"""The parts of the service: the command, readiness probe, and liveness request of each process.

    fork server ─► TorchServe's frontend ─► gRPC bridge ─► front door ─► gateway

``serving/supervisor/supervisor.py`` starts them in this order.
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

# A process that answers needs milliseconds. With the 5 s between two requests, one lost answer stays below the default
# FASHION_HANG_TIMEOUT of 20 s.
LIVENESS_TIMEOUT_S = 5.0


@dataclasses.dataclass(frozen=True)
class Part:
    """One process of the service.

    Attributes:
        name: of the part.
        command: program and arguments.
        output: file for its standard output and error.
        probe: polled during a start; returns ``None`` when the part is ready, else its status.
            Raises ``StartError`` when the start has failed.
        answers: sends a liveness request; whether the part answers within ``LIVENESS_TIMEOUT_S``.
        environment: all its environment variables.
        folder: its working directory.
        stop_signal: the signal for a graceful stop, after which the part answers its open requests and ends.
        death_signal: the signal that Linux sends to the process when the supervisor is killed.
        faces_callers: a graceful stop ends these parts before the others.
    """

    name: str
    command: Sequence[str]
    output: Path
    probe: Callable[[], str | None]
    answers: Callable[[], bool]
    environment: dict[str, str] = dataclasses.field(default_factory=lambda: dict(os.environ))
    folder: Path = ROOT
    stop_signal: int = signal.SIGTERM
    death_signal: int = signal.SIGKILL
    faces_callers: bool = False


def plan(settings: Settings, scratch: Path) -> list[Callable[[Report], Part]]:
    """One function per part, in the order of the starts. Each start of a part calls its function.

    Args:
        settings: of the service.
        scratch: private folder with a short path, for sockets and TorchServe's unpacked archives.
    """
    return [
        *([lambda _: _fork_server(settings, scratch)] * forking.available(settings)),
        lambda report: _frontend(settings, live_archives(settings, report), scratch),
        lambda _: _bridge(settings),
        lambda _: _frontdoor(settings),
        lambda _: _gateway(settings, scratch),
    ]


def live_archives(settings: Settings, report: Report) -> list[Archive]:
    """The verified archives of the live versions, which a start or restart of the frontend loads.

    Args:
        settings: of the service.
        report: receives the archives that the index does not list.

    Returns:
        The archives, with the default version of each model first.

    Raises:
        ArchiveError: the model store has no archive, that of a live version is missing or damaged, or the index is not
            signed as ``FASHION_STORE_KEY`` requires.
        SettingError: the file of ``FASHION_STORE_KEY`` cannot be used.
        StateError: ``live.json`` cannot be parsed.
    """
    listed = index.read(settings.model_store, settings.store_key)
    for path in index.unlisted(settings.model_store, listed):
        report(f"{path} is ignored, because {index.NAME} does not list it; make archive lists what it packs")
    _, chosen = live.settle(live.read(settings.run), listed)
    return [archive_files.read_listed(entry) for entry in chosen]


def _fork_server(settings: Settings, scratch: Path) -> Part:
    return Part(
        name=FORK_SERVER,
        command=[sys.executable, str(forking.SERVER), str(forking.address(scratch))],
        # Forked workers inherit it. It equals that of workers that the frontend starts itself.
        environment=jvm.environment(settings, scratch),
        folder=settings.run,
        output=settings.log("fork_server.log"),
        # Without the fork server a launcher starts Python itself.
        probe=lambda: None if forking.listens(scratch) else "starting the fork server",
        answers=lambda: forking.answers(scratch, LIVENESS_TIMEOUT_S),
        # On SIGTERM it ends its workers.
        death_signal=signal.SIGTERM,
    )


def _frontend(settings: Settings, archives: Sequence[Archive], scratch: Path) -> Part:
    return Part(
        name=FRONTEND,
        command=jvm.command(settings, jvm.write_config(settings, archives), scratch),
        environment=jvm.environment(settings, scratch),
        folder=settings.run,
        output=settings.log("frontend.out"),
        probe=_frontend_probe(settings, archives),
        answers=lambda: _http_answers(f"{settings.inference.url}/ping"),
    )


def _frontend_probe(settings: Settings, archives: Sequence[Archive]) -> Callable[[], str | None]:
    frontend = FrontendProbe(settings, archives)
    unbatched = {archive.model for archive in archives if archive.unbatched}

    def probe() -> str | None:
        status = frontend()
        # A restarted frontend writes new tokens before its workers start. A running gateway must have them when the
        # workers are ready.
        try:
            reload.apply(settings, live.read(settings.run), unbatched, wait=False)
        except TokenError:
            if status is None:
                raise
        return status

    return probe


def _bridge(settings: Settings) -> Part:
    return Part(
        name=BRIDGE,
        command=[sys.executable, "-m", "serving.sidecars.grpc.server"],
        output=settings.log("grpc_bridge.log"),
        probe=_listens(settings.grpc_bridge, f"starting the {BRIDGE}"),
        answers=lambda: _grpc_answers(settings),
        faces_callers=True,
    )


def _frontdoor(settings: Settings) -> Part:
    return Part(
        name=FRONTDOOR,
        command=[sys.executable, "-m", "serving.sidecars.frontdoor"],
        output=settings.log("frontdoor.log"),
        probe=_listens(settings.frontdoor, f"starting the {FRONTDOOR}"),
        answers=lambda: _http_answers(f"{settings.frontdoor.url}/v2"),
    )


def _gateway(settings: Settings, scratch: Path) -> Part:
    program, status = nginx_binary.find(settings.nginx), settings.gateway_status
    return Part(
        name=GATEWAY,
        command=config.command(program, config.write_config(settings, program, scratch)),
        folder=settings.run,
        output=settings.log("gateway.log"),
        probe=_listens(status, f"starting the {GATEWAY}"),
        answers=lambda: _http_answers(f"{settings.gateway_status.url}/status"),
        # nginx drops its open requests on SIGTERM. If the master is killed, its workers survive.
        stop_signal=signal.SIGQUIT,
        death_signal=signal.SIGTERM,
        faces_callers=True,
    )


def _listens(port: Port, status: str) -> Callable[[], str | None]:
    return lambda: None if ports.listens(port.host, port.number) else status


def _http_answers(url: str) -> bool:
    """Whether a server answers, with any status."""
    with loopback.client(LIVENESS_TIMEOUT_S) as client, suppress(httpx.HTTPError):
        client.get(url)
        return True
    return False


def _grpc_answers(settings: Settings) -> bool:
    """Whether the bridge answers gRPC's health service, over one HTTP/2 request."""
    headers = {"Content-Type": "application/grpc", "TE": "trailers"}
    with loopback.client(LIVENESS_TIMEOUT_S, http2=True) as client, suppress(httpx.HTTPError):
        # An empty message (no compression, length 0) requests the health of the whole server.
        client.post(f"{settings.grpc_bridge.url}/grpc.health.v1.Health/Check", content=bytes(5), headers=headers)
        return True
    return False
