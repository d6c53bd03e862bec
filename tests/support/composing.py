"""Docker commands for tests, and a composed service: its container and its gateway."""

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

# `make test-containers` sets FASHION_DEVICE, and COMPOSE_FILE for a GPU.
IMAGE = f"fashion-serve:{os.environ.get('FASHION_DEVICE', 'cpu')}"
TIMEOUT = 60.0
# Time to import torch in a container on an idle machine, rounded up.
_IMPORT_S = 2.0


def run(*command: str, environment: dict[str, str] | None = None, check: bool = True, timeout: float = 360) -> str:
    """Run a command and return its output; with ``check`` it must succeed."""
    result = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert not check or result.returncode == 0, f"{' '.join(command)}: {result.returncode}\n{result.stdout}"
    return result.stdout


def inspect(name: str) -> dict[str, Any]:
    """Docker's description of a container or image."""
    description: dict[str, Any] = json.loads(run("docker", "inspect", name))[0]
    return description


def wait_until(condition: Callable[[], bool], timeout: float, what: str) -> float:
    """Wait until a condition holds; returns the seconds that it took. ``what`` is for the error message."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout, f"{what}: not within {timeout:g} s"
        time.sleep(0.1)
    return time.monotonic() - started


@dataclasses.dataclass(frozen=True)
class Stack:
    """One composed service.

    Attributes:
        project: its name.
        gateway_port, grpc_port: its published ports.
    """

    project: str
    gateway_port: int
    grpc_port: int

    @property
    def url(self) -> str:
        """The gateway's address, without a slash at the end."""
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def container(self) -> str:
        """The name of its container."""
        return f"{self.project}-fashion-serve-1"

    def compose(self, *arguments: str, **settings: str) -> str:
        """Run docker compose with the project's files; ``settings`` override its variables."""
        own = {
            "COMPOSE_PROJECT_NAME": self.project,
            "FASHION_GATEWAY_PORT": str(self.gateway_port),
            "FASHION_GRPC_PORT": str(self.grpc_port),
        }
        return run("docker", "compose", *arguments, environment={**own, **settings})

    def up(self, *options: str, **settings: str) -> float:
        """Start the service, wait until it is healthy, and return the seconds that it took."""
        started = time.monotonic()
        self.compose("up", "--detach", "--wait", "--wait-timeout", "120", *options, **settings)
        return time.monotonic() - started

    def down(self) -> None:
        """Remove the service and its volume."""
        self.compose("down", "--volumes")

    def inspect(self) -> dict[str, Any]:
        """Docker's description of its container."""
        return inspect(self.container)

    def inside(self, script: str, check: bool = True) -> str:
        """Run a shell script in its container; returns the output."""
        return run("docker", "exec", self.container, "sh", "-c", script, check=check)

    def beside(self, script: str) -> str:
        """Run a Python script in another container on its network; returns the output."""
        network = f"--network={self.project}_default"
        return run("docker", "run", "--rm", network, "--entrypoint", "python", IMAGE, "-c", script)

    def is_ready(self) -> bool:
        """Whether the gateway answers 200 at /readyz."""
        try:
            return requests.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def slowed(self, seconds: float) -> float:
        """A time limit of an idle machine, extended in proportion to the current load of this one."""
        started = time.monotonic()
        run("docker", "exec", self.container, "python", "-c", "import torch")
        return seconds * max(1.0, (time.monotonic() - started) / _IMPORT_S)
