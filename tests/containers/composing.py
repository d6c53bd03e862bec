"""A composed service as tests see it: its containers, what Docker says of them, and its gateway."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import requests

from serving.settings import ROOT

SERVICES = ("torchserve", "frontdoor", "grpc", "gateway")
TORCHSERVE = f"fashion-serve-torchserve:{subprocess.check_output([ROOT / 'docker' / 'device'], text=True).strip()}"
GATEWAY = "fashion-serve-gateway:latest"
TIMEOUT = 60.0


def run(*command: str, environment: dict[str, str] | None = None, check: bool = True, timeout: float = 360) -> str:
    """Run a command and return what it printed; with ``check`` it must succeed."""
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert not check or ran.returncode == 0, f"{' '.join(command)}: {ran.returncode}\n{ran.stdout}"
    return ran.stdout


def inspect(name: str) -> dict[str, Any]:
    """All that Docker knows of a container or image."""
    return json.loads(run("docker", "inspect", name))[0]


def wait_until(condition: Callable[[], bool], timeout: float, what: str) -> float:
    """Wait until a condition holds, and return how many seconds that took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < timeout, f"{what}: not within {timeout:g} s"
        time.sleep(0.1)
    return time.monotonic() - begun


@dataclasses.dataclass(frozen=True)
class Stack:
    """One composed service.

    Attributes:
        project: its name.
        network: the first three numbers of its network.
        gateway_port, grpc_port: where it is published.
    """

    project: str
    network: str
    gateway_port: int
    grpc_port: int

    @property
    def url(self) -> str:
        """The gateway's address, without a slash at the end."""
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def environment(self) -> dict[str, str]:
        """The settings that make it this one."""
        return {
            "COMPOSE_PROJECT_NAME": self.project,
            "FASHION_NETWORK": self.network,
            "FASHION_GATEWAY_PORT": str(self.gateway_port),
            "FASHION_GRPC_PORT": str(self.grpc_port),
        }

    def compose(self, *arguments: str, **settings: str) -> str:
        """Run docker compose with the project's files, and settings in the place of its own."""
        return run("docker/compose", *arguments, environment={**self.environment, **settings})

    def up(self) -> str:
        """Bring up all that is not, as `make up` does, and wait until it is ready."""
        return run("docker/up", environment=self.environment)

    def container(self, service: str) -> str:
        """The name of a service's container."""
        return f"{self.project}-{service}-1"

    def inspect(self, service: str) -> dict[str, Any]:
        """What Docker knows of a service's container."""
        return inspect(self.container(service))

    def inside(self, service: str, script: str, check: bool = True) -> str:
        """What a shell script prints in a service's container."""
        return run("docker", "exec", self.container(service), "sh", "-c", script, check=check)

    def is_ready(self) -> bool:
        """The gateway says that everything is ready."""
        try:
            return requests.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except requests.RequestException:
            return False
