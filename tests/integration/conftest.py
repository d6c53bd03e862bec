"""Real services on free ports, with folders of their own.

``service`` serves the repository's trained models and is shared by all tests: leave it as it was. ``FASHION_URL``, such
as http://127.0.0.1:8000, names the gateway of one that runs already, which is used in its place. ``tiny_service``
serves one linear layer, is up sooner, and is shared too. ``place`` is a place to start a service of one's own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from serving import archives, settings
from serving.archives import Archive
from serving.processes import port_is_free
from serving.settings import ROOT, Settings
from tests import gateways, packing, ports
from tests.gateways import Gateway


@dataclasses.dataclass(frozen=True)
class Place:
    """A place for one service: its settings, as environment variables and as the service reads them."""

    environment: dict[str, str]
    settings: Settings

    @property
    def inference(self) -> str:
        """URL of TorchServe's inference API."""
        return self.settings.inference.url

    @property
    def management(self) -> str:
        """URL of its management API."""
        return self.settings.management.url

    @property
    def metrics(self) -> str:
        """URL of its metrics API."""
        return self.settings.metrics.url

    @property
    def gateway(self) -> str:
        """URL of the gateway."""
        return self.settings.gateway.url

    @property
    def grpc(self) -> str:
        """Address of the Open Inference Protocol over gRPC, ``host:port``."""
        return self.settings.grpc.address

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``python -m serving`` with these arguments to its end."""
        return subprocess.run(
            [sys.executable, "-m", "serving", *arguments],
            cwd=ROOT,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=180,
        )

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin ``python -m serving`` with these arguments; its output is to be read from ``stdout``."""
        return subprocess.Popen(
            [sys.executable, "-m", "serving", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def start(self) -> None:
        """Start the service, which must succeed."""
        started = self.run("start")
        assert started.returncode == 0, started.stdout + started.stderr

    def processes(self) -> list[psutil.Process]:
        """All living processes of this place, workers included, however they were left: they inherit its variables."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                mine = process.environ().get("FASHION_RUN_DIR") == self.environment["FASHION_RUN_DIR"]
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def workers(self) -> list[psutil.Process]:
        """Those of ``processes`` that are TorchServe's workers."""
        found = []
        for process in self.processes():
            # It may end between the two looks.
            with suppress(psutil.Error):
                words = " ".join(process.cmdline())
                # Forked, or started without a fork server; a launcher is neither.
                if process.name() == "worker" or ("model_service_worker" in words and "launcher.py" not in words):
                    found.append(process)
        return found

    def pid(self, name: str) -> int:
        """The number of one of the processes that a start leaves behind; it may have ended."""
        (found,) = [each["pid"] for each in self.state()["processes"] if each["name"] == name]
        return found

    def process(self, name: str) -> psutil.Process:
        """One of these processes, which runs."""
        return psutil.Process(self.pid(name))

    def state(self) -> dict[str, Any]:
        """What ``run/service.json`` says."""
        return json.loads((self.settings.run / "service.json").read_text())

    def assert_nothing_left(self, scratch: str) -> None:
        """No process, no listener, no state and no temporary file remains of the service."""
        assert self.processes() == []
        assert all(port_is_free(settings.HOST, port.number) for port in self.settings.ports)
        assert not (self.settings.run / "service.json").exists()
        assert not Path(scratch).exists()


class Elsewhere(Place):
    """A service that runs already, of which nothing but the gateway can be reached."""

    @property
    def inference(self) -> str:
        """The gateway too: it answers as TorchServe does."""
        return self.gateway


def make_place(folder: Path, model_store: Path) -> Place:
    """A place with free ports and folders of its own under ``folder``."""
    base = settings.read({})
    numbers = ports.free(len(base.ports))
    environment = {
        **os.environ,
        **{port.variable: str(number) for port, number in zip(base.ports, numbers, strict=True)},
        "FASHION_MODEL_STORE": str(model_store),
        "FASHION_RUN_DIR": str(folder / "run"),
        "FASHION_LOG_DIR": str(folder / "logs"),
    }
    return Place(environment, settings.read(environment))


@pytest.fixture(scope="session")
def service(tmp_path_factory) -> Iterator[Place]:
    """The repository's archives, served; ``make archive`` must have built them."""
    if elsewhere := os.environ.get("FASHION_URL"):
        environment = {"FASHION_GATEWAY_PORT": str(urlsplit(elsewhere).port)}
        yield Elsewhere(environment, settings.read(environment))
        return
    place = make_place(tmp_path_factory.mktemp("service"), settings.read().model_store)
    place.start()
    yield place
    place.run("stop")


@pytest.fixture(scope="session")
def served(service) -> list[Archive]:
    """The archives that ``service`` serves."""
    return archives.read_store(service.settings.model_store)


@pytest.fixture(scope="session")
def tiny_service(tmp_path_factory) -> Iterator[Place]:
    """One linear layer, served as the model ``tiny``."""
    folder = tmp_path_factory.mktemp("tiny")
    packing.pack(folder / "model_store")
    place = make_place(folder, folder / "model_store")
    place.start()
    yield place
    place.run("stop")


@pytest.fixture(scope="session")
def gateway(service) -> Gateway:
    """The gateway of ``service``; skips without nginx, but in CI fails."""
    if not isinstance(service, Elsewhere):
        gateways.required_nginx()
    return Gateway(service.gateway, service.settings.gateway.number, service.settings.logs)


@pytest.fixture
def place(tmp_path) -> Iterator[Place]:
    """A place with an empty model store, where nothing runs; what a test leaves running is stopped."""
    store = tmp_path / "model_store"
    store.mkdir()
    place = make_place(tmp_path, store)
    yield place
    if place.settings.run.exists():
        place.run("stop")
