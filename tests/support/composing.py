"""A composed service as tests see it: its container, what Docker says of it, and its gateway."""

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
# How long a machine with nothing else to do takes to import torch in a container, generously.
_IMPORT_S = 2.0


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
        gateway_port, grpc_port: where it is published.
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
        """Run docker compose with the project's files, and settings in the place of its own."""
        own = {
            "COMPOSE_PROJECT_NAME": self.project,
            "FASHION_GATEWAY_PORT": str(self.gateway_port),
            "FASHION_GRPC_PORT": str(self.grpc_port),
        }
        return run("docker", "compose", *arguments, environment={**own, **settings})

    def up(self, *options: str, **settings: str) -> float:
        """Bring up what is not, wait until it is healthy, and return how many seconds that took."""
        begun = time.monotonic()
        self.compose("up", "--detach", "--wait", "--wait-timeout", "120", *options, **settings)
        return time.monotonic() - begun

    def down(self) -> None:
        """Remove it, its volume too."""
        self.compose("down", "--volumes")

    def inspect(self) -> dict[str, Any]:
        """What Docker knows of its container."""
        return inspect(self.container)

    def inside(self, script: str, check: bool = True) -> str:
        """What a shell script prints in its container."""
        return run("docker", "exec", self.container, "sh", "-c", script, check=check)

    def beside(self, script: str) -> str:
        """What a Python script prints in another container on its network."""
        network = f"--network={self.project}_default"
        return run("docker", "run", "--rm", network, "--entrypoint", "python", IMAGE, "-c", script)

    def is_ready(self) -> bool:
        """The gateway says that everything is ready."""
        try:
            return requests.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def slowed(self, seconds: float) -> float:
        """A time limit for a machine with nothing else to do, longer in proportion where other work slows this one."""
        begun = time.monotonic()
        run("docker", "exec", self.container, "python", "-c", "import torch")
        return seconds * max(1.0, (time.monotonic() - begun) / _IMPORT_S)
