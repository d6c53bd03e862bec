"""Gateways for tests: a real nginx in front of a running service, or of a test's scripted server."""

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
    """The route table of ``openapi.yaml``: path with ``{model}`` and ``{version}`` → methods in capitals."""
    return {
        path: [method.upper() for method in _METHODS if method in described]
        for path, described in OPENAPI["paths"].items()
    }


@dataclasses.dataclass(frozen=True)
class Gateway:
    """A running gateway with these settings."""

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
        """The folder of ``access.log`` and ``gateway.log``, nginx's error log."""
        return self.settings.logs

    def access(self, request_id: str) -> dict[str, Any]:
        """The access log's entry of a request; nginx writes it within a second."""
        entries: list[dict[str, Any]] = []

        def logged() -> bool:
            lines = (self.logs / "access.log").read_text().splitlines()
            entries[:] = [entry for entry in map(json.loads, lines) if entry["id"] == request_id]
            return bool(entries)

        assert polling.wait_until(logged, 10), f"{self.logs / 'access.log'} has no entry for {request_id}"
        return entries[0]

    def converse(self, sent: bytes, answers: int = 1, timeout: float = 10) -> bytes:
        """Send bytes over a new connection; returns ``answers`` answers, or fewer if the gateway closes it."""
        with socket.create_connection((self.settings.gateway.host, self.port), timeout=timeout) as connection:
            connection.sendall(sent)
            received = b""
            with contextlib.suppress(ConnectionResetError):
                while not _contains(received, answers) and (more := connection.recv(65536)):
                    received += more
        return received


def _contains(received: bytes, answers: int) -> bool:
    """Whether bytes contain ``answers`` complete HTTP answers."""
    for _ in range(answers):
        head, separator, received = received.partition(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        size = int(length[1]) if length else 0
        if not separator or len(received) < size:
            return False
        received = received[size:]
    return True


def _replace(folder: Path, name: str, value: str) -> None:
    """Change a directive outside of server blocks."""
    for path in folder.glob("*.conf"):
        text, count = re.subn(rf"^{name} [^;]+;", f"{name} {value};", path.read_text(), flags=re.MULTILINE)
        if count:
            path.write_text(text)
            return
    raise AssertionError(f"{name} is not in {folder}")


@contextlib.contextmanager
def running(
    base: Settings, folder: Path, directives: Mapping[str, str] | None = None, **changes: Any
) -> Iterator[Gateway]:
    """Run a gateway on free ports in front of the service with these settings.

    Args:
        base: settings of the service.
        folder: for the gateway's run and log folders.
        directives: nginx directives to change, outside of server blocks.
        changes: settings to change.
    """
    program = nginx_binary.find(changes.get("nginx", settings.read().nginx))
    port, grpc, status = free_ports.find(3)
    gateway_settings = dataclasses.replace(
        base,
        gateway=dataclasses.replace(base.gateway, number=port),
        grpc=dataclasses.replace(base.grpc, number=grpc),
        gateway_status=dataclasses.replace(base.gateway_status, number=status),
        run=folder / "run",
        logs=folder / "logs",
        **changes,
    )
    gateway_settings.logs.mkdir(parents=True, exist_ok=True)
    # The path of a test's folder can be too long for a socket.
    scratch = Path(tempfile.mkdtemp(prefix="gateway-"))
    try:
        path = config.write_config(gateway_settings, program, scratch)
        for name, value in (directives or {}).items():
            _replace(path.parent, name, value)
        log = gateway_settings.log("gateway.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                # Like the supervisor's gateway. The guard (guard.py) finds nginx's workers by this directory.
                config.command(program, path),
                cwd=gateway_settings.run,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            started = polling.wait_until(
                lambda: process.poll() is not None or ports.listens(gateway_settings.gateway.host, port), 10
            )
            assert started, log.read_text()
            assert process.poll() is None, log.read_text()
            yield Gateway(gateway_settings)
        finally:
            # A fast stop, because the tests have their answers.
            process.terminate()
            process.wait(10)
    finally:
        shutil.rmtree(scratch)
