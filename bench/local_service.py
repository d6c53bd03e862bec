"""A private service for a measurement, with the archives that it needs, on free ports."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from models import archiving, catalog
from models.catalog import Serving
from serving import polling, ports, settings
from serving.gateway import config, live_config
from serving.gateway.nginx_binary import Nginx
from serving.settings import HOST, ROOT, Settings
from serving.torchserve import management

# Load before measuring: Java compiles frequently run code, and reaches its full speed after about 15 s.
WARM_UP_S = 20
# Below the ports of outgoing connections (Linux from 32768), such as those of wrk and of the gateway.
_FREE_PORTS = range(20000, 30000)
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
    """The service did not start; the message is the service's own."""


@dataclasses.dataclass(frozen=True)
class Service:
    """A running service.

    Attributes:
        inference: URL of TorchServe's own port, without a slash at the end.
        gateway: URL of the gateway.
        management: URL of the management API.
        model_store: folder of its archives.
        processes: its processes by name.
        settings: its settings.
    """

    inference: str
    gateway: str
    management: str
    model_store: Path
    processes: dict[str, psutil.Process]
    settings: Settings


def free_ports(count: int) -> list[int]:
    """Different ports without listeners."""
    shuffled = random.sample(_FREE_PORTS, len(_FREE_PORTS))
    return list(itertools.islice((port for port in shuffled if ports.is_free(HOST, port)), count))


@contextmanager
def service(
    models: Sequence[str],
    during_start: Callable[[str], None] | None = None,
    serving: Serving | None = None,
) -> Iterator[Service]:
    """Run a service of some trained models, and remove it after the block.

    Args:
        models: names of the catalog.
        during_start: called in a thread during the start, with the URL of TorchServe's own port.
        serving: serving settings that replace the catalog's.

    Raises:
        ServiceError: the service did not start.
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
        urls = {name: f"http://127.0.0.1:{number}" for name, number in numbers.items()}

        def run(*command: str) -> None:
            program = [sys.executable, "-m", *command]
            result = subprocess.run(program, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
            if result.returncode:
                raise ServiceError(result.stderr.strip() or result.stdout.strip())

        if serving is None:
            run("models", "archive", *models)
        else:
            for model in models:
                entry = dataclasses.replace(catalog.get(model), serving=serving)
                archiving.archive(entry, "1.0", Path(folder, "store"))
        thread = threading.Thread(target=during_start, args=(urls["INFERENCE"],)) if during_start else None
        if thread:
            thread.start()
        try:
            run("serving", "start")
            if thread:
                thread.join()
            state = json.loads(Path(folder, "run", "service.json").read_text())
            yield Service(
                urls["INFERENCE"],
                urls["GATEWAY"],
                urls["MANAGEMENT"],
                Path(folder, "store"),
                {name: psutil.Process(pid) for name, pid in state["processes"].items()},
                settings.read(variables),
            )
        finally:
            run("serving", "stop")


@contextmanager
def gateway_of(service: Service, program: Nginx, batches_only: bool = False) -> Iterator[str]:
    """Run another gateway in front of a running service, and yield its URL.

    Args:
        service: the service.
        program: the nginx to run.
        batches_only: the gateway does not use the registrations without batches.

    Raises:
        ServiceError: nginx did not start.
    """
    number, grpc, status = free_ports(3)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        gateway_settings = dataclasses.replace(
            service.settings,
            gateway=dataclasses.replace(service.settings.gateway, number=number),
            grpc=dataclasses.replace(service.settings.grpc, number=grpc),
            gateway_status=dataclasses.replace(service.settings.gateway_status, number=status),
            run=Path(folder, "run"),
            logs=Path(folder, "logs"),
        )
        gateway_settings.logs.mkdir()
        unbatched = () if batches_only else management.of_service(service.settings).unbatched()
        live_config.write(live_config.live_file(gateway_settings), live_config.render({}, unbatched, {}))
        command = config.command(program, config.write_config(gateway_settings, program, Path(folder)))
        log = gateway_settings.logs / "gateway.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            if not polling.wait_until(lambda: ports.listens(HOST, number), 10):
                raise ServiceError(log.read_text())
            yield gateway_settings.gateway_url
        finally:
            process.terminate()
            process.wait(10)
