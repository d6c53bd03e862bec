"""Gateways for tests: a real nginx in front of a service that runs, or of a server that a test scripts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from serving import polling, ports, settings
from serving.gateway import config, nginx_binary
from serving.settings import ROOT, Settings
from tests.support import free_ports

OPENAPI = yaml.safe_load((ROOT / "web" / "openapi.yaml").read_text())
PROBLEM = {"type", "title", "status", "detail", "instance", "error"}
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


def routes() -> dict[str, list[str]]:
    """The route table as ``openapi.yaml`` has it: path with ``{model}`` and ``{version}`` to methods in capitals."""
    return {
        path: [method.upper() for method in _METHODS if method in described]
        for path, described in OPENAPI["paths"].items()
    }


@dataclasses.dataclass(frozen=True)
class Gateway:
    """A gateway that runs with these settings."""

    settings: Settings

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return self.settings.gateway_url

    @property
    def port(self) -> int:
        """The port of its HTTP server."""
        return self.settings.gateway.number

    @property
    def logs(self) -> Path:
        """The folder of ``access.log`` and of ``gateway.log``, nginx's error log."""
        return self.settings.logs

    def access(self, request_id: str) -> dict[str, Any]:
        """The access log's entry of a request; nginx writes it within a second."""
        found: list[dict[str, Any]] = []

        def logged() -> bool:
            lines = (self.logs / "access.log").read_text().splitlines()
            found[:] = [entry for entry in map(json.loads, lines) if entry["id"] == request_id]
            return bool(found)

        assert polling.wait_until(logged, 10), f"nothing in {self.logs / 'access.log'} about {request_id}"
        return found[0]

    def converse(self, sent: bytes, answers: int = 1, timeout: float = 10) -> bytes:
        """Send bytes over a connection of their own and return what comes: so many answers, or less if it is closed."""
        with socket.create_connection((self.settings.gateway.host, self.port), timeout=timeout) as connection:
            connection.sendall(sent)
            received = b""
            with contextlib.suppress(ConnectionResetError):
                while not _hold(received, answers) and (more := connection.recv(65536)):
                    received += more
        return received


def _hold(received: bytes, answers: int) -> bool:
    """Whether bytes hold so many whole answers of HTTP."""
    for _ in range(answers):
        head, ended, received = received.partition(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        size = int(length[1]) if length else 0
        if not ended or len(received) < size:
            return False
        received = received[size:]
    return True


def _replace(folder: Path, name: str, value: str) -> None:
    """Change a directive that stands outside of servers."""
    for path in folder.glob("*.conf"):
        text, found = re.subn(rf"^{name} [^;]+;", f"{name} {value};", path.read_text(), flags=re.MULTILINE)
        if found:
            path.write_text(text)
            return
    raise AssertionError(f"{name} is not in {folder}")


@contextlib.contextmanager
def running(
    base: Settings, folder: Path, directives: Mapping[str, str] | None = None, **changes: Any
) -> Iterator[Gateway]:
    """Run a gateway of its own, on a free port, in front of the service with these settings.

    Args:
        base: settings of the service.
        folder: where the gateway writes.
        directives: values of nginx's directives that are different for this gateway, outside of servers.
        changes: settings that are different for this gateway.
    """
    program = nginx_binary.find(settings.read().nginx)
    port, grpc, status = free_ports.find(3)
    given = dataclasses.replace(
        base,
        gateway=dataclasses.replace(base.gateway, number=port),
        grpc=dataclasses.replace(base.grpc, number=grpc),
        gateway_status=dataclasses.replace(base.gateway_status, number=status),
        run=folder / "run",
        logs=folder / "logs",
        **changes,
    )
    given.logs.mkdir(parents=True, exist_ok=True)
    # A folder of a test can have too long a path for a socket.
    scratch = Path(tempfile.mkdtemp(prefix="gateway-"))
    try:
        path = config.write_config(given, program, scratch)
        for name, value in (directives or {}).items():
            _replace(path.parent, name, value)
        log = given.log("gateway.log")
        with log.open("wb") as output:
            process = subprocess.Popen(config.command(program, path), stdout=output, stderr=subprocess.STDOUT)
        try:
            started = polling.wait_until(
                lambda: process.poll() is not None or ports.listens(given.gateway.host, port), 10
            )
            assert started, log.read_text()
            assert process.poll() is None, log.read_text()
            yield Gateway(given)
        finally:
            # Fast: its tests have their answers.
            process.terminate()
            process.wait(10)
    finally:
        shutil.rmtree(scratch)
