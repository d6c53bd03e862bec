"""A service of its own for a measurement: the archives it needs, on free ports, started and stopped like any other."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from models import archiving, catalog
from models.catalog import Serving
from serving import polling, ports, settings
from serving.gateway import config
from serving.gateway.nginx_binary import Nginx
from serving.settings import HOST, ROOT, Settings

# Seconds of load. Java compiles what it runs often, and is at its best after some fifteen.
WARM_UP = 20
_PORTS = (
    "GATEWAY",
    "GATEWAY_STATUS",
    "GRPC",
    "GRPC_BRIDGE",
    "FRONTDOOR",
    "INFERENCE",
    "MANAGEMENT",
    "METRICS",
    "TS_GRPC",
    "TS_GRPC_MANAGEMENT",
)


class ServiceError(Exception):
    """The service did not start; the message is its own."""


@dataclasses.dataclass(frozen=True)
class Service:
    """One that runs.

    Attributes:
        inference: address of TorchServe's own port, without a slash at the end.
        gateway: address of the gateway.
        management: address of the management API.
        model_store: folder of its archives.
        processes: what was started, by its name.
        settings: as the service reads them.
    """

    inference: str
    gateway: str
    management: str
    model_store: Path
    processes: dict[str, psutil.Process]
    settings: Settings


def free_ports(count: int) -> list[int]:
    """Different ports on which nothing listens."""
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


@contextmanager
def service(
    models: Sequence[str],
    profile: str = "throughput",
    beside: Callable[[str], None] | None = None,
    serving: Serving | None = None,
) -> Iterator[Service]:
    """A service of some trained models; nothing of it is left behind the block.

    Args:
        models: names of the catalog.
        profile: one of the catalog's ``PROFILES``.
        serving: what the models are served with, in place of what the catalog says.
        beside: called with the address of TorchServe's own port, in a thread, as the start begins.

    Raises:
        ServiceError: it did not start.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        numbers = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        variables = {
            **os.environ,
            **{f"FASHION_{name}_PORT": str(port) for name, port in numbers.items()},
            "FASHION_MODEL_STORE": f"{folder}/store",
            "FASHION_RUN_DIR": f"{folder}/run",
            "FASHION_LOG_DIR": f"{folder}/logs",
        }
        address = {name: f"http://127.0.0.1:{number}" for name, number in numbers.items()}

        def run(*command: str) -> None:
            done = subprocess.run(
                [sys.executable, "-m", *command], cwd=ROOT, env=variables, capture_output=True, text=True
            )
            if done.returncode:
                raise ServiceError(done.stderr.strip() or done.stdout.strip())

        if serving is None:
            run("models", "archive", *models, "--profile", profile)
        else:
            for model in models:
                entry = dataclasses.replace(catalog.get(model), serving=serving)
                archiving.archive(entry, "1.0", Path(folder, "store"))
        watcher = threading.Thread(target=beside, args=(address["INFERENCE"],)) if beside else None
        if watcher:
            watcher.start()
        try:
            run("serving", "start")
            if watcher:
                watcher.join()
            state = json.loads(Path(folder, "run", "service.json").read_text())
            yield Service(
                address["INFERENCE"],
                address["GATEWAY"],
                address["MANAGEMENT"],
                Path(folder, "store"),
                {name: psutil.Process(pid) for name, pid in state["processes"].items()},
                settings.read(variables),
            )
        finally:
            run("serving", "stop")


@contextmanager
def gateway_of(service: Service, program: Nginx) -> Iterator[str]:
    """A further gateway in front of a service; its address.

    Args:
        service: one that runs.
        program: the nginx to run.

    Raises:
        ServiceError: it did not start.
    """
    number, grpc, status = free_ports(3)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        given = dataclasses.replace(
            service.settings,
            gateway=dataclasses.replace(service.settings.gateway, number=number),
            grpc=dataclasses.replace(service.settings.grpc, number=grpc),
            gateway_status=dataclasses.replace(service.settings.gateway_status, number=status),
            run=Path(folder, "run"),
            logs=Path(folder, "logs"),
        )
        given.logs.mkdir()
        command = config.command(program, config.write_config(given, program, Path(folder)))
        log = given.logs / "gateway.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            if not polling.wait_until(lambda: ports.listens(HOST, number), 10):
                raise ServiceError(log.read_text())
            yield given.gateway_url
        finally:
            process.terminate()
            process.wait(10)
