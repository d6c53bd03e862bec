"""Official clients, unmodified, against the whole service.

They run in their own virtual environment (``requirements/conformance.txt``), because they need an older protobuf than
the service. ``FASHION_URL`` (http://127.0.0.1:8000) and ``FASHION_GRPC`` (127.0.0.1:8001) name a running service.
Without them the tests start one on free ports, with the project's environment ``.venv``.

KServe's and Triton's clients register different protobuf messages under the same names, which fails in one process. Run
``test_kserve.py`` separately.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest
import requests

from serving import settings
from serving.settings import ROOT
from tests.support import free_ports
from tests.support.reference import PIXELS, TIMEOUT
from tests.support.signatures import LABELS


@dataclasses.dataclass(frozen=True)
class Service:
    """A service's addresses: ``http`` is a URL without a trailing slash, ``grpc`` is ``host:port``."""

    http: str
    grpc: str

    @property
    def host(self) -> str:
        """The HTTP address without its scheme, for Triton's client."""
        return self.http.partition("//")[2]


@pytest.fixture(scope="session")
def service(tmp_path_factory) -> Iterator[Service]:
    """The service that the environment variables name, or a new one."""
    if "FASHION_URL" in os.environ:
        yield Service(os.environ["FASHION_URL"].rstrip("/"), os.environ["FASHION_GRPC"])
        return
    folder = tmp_path_factory.mktemp("service")
    base = settings.read({})
    numbers = free_ports.find(len(base.ports))
    environment = {
        **os.environ,
        **{port.variable: str(number) for port, number in zip(base.ports, numbers, strict=True)},
        "FASHION_RUN_DIR": str(folder / "run"),
        "FASHION_LOG_DIR": str(folder / "logs"),
    }
    place = settings.read(environment)

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ROOT / ".venv/bin/python", "-m", "serving", command],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
        )

    started = run("start")
    assert started.returncode == 0, started.stdout + started.stderr
    yield Service(place.gateway.url, f"{settings.HOST}:{place.grpc.number}")
    run("stop")


@pytest.fixture(params=["fashion_mlp", "fashion_convnet"])
def model(request: pytest.FixtureRequest) -> str:
    """The name of an image model; its version is ``VERSION``."""
    return str(request.param)


@pytest.fixture
def expected(service, model) -> np.ndarray:
    """Probabilities of ``PIXELS``, float32 [5, 10], from the service's simplest format: raw bytes."""
    answer = requests.post(
        f"{service.http}/predictions/{model}",
        data=PIXELS.tobytes(),
        headers={"Content-Type": "application/octet-stream", "Accept": "application/octet-stream"},
        timeout=TIMEOUT,
    )
    assert answer.status_code == 200, answer.text
    return np.frombuffer(answer.content, "<f4").reshape(len(PIXELS), len(LABELS))
