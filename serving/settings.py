"""Ports, addresses and folders of the local service: the one place that names them.

Everything listens on the loopback address; only the gateway is meant for callers. Each value can be changed by an
environment variable; ``python -m serving --help`` lists them.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from serving.errors import SettingError

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise ValueError
    return port


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds


def _path(text: str) -> Path:
    if not text:
        raise ValueError
    return Path(text).expanduser().absolute()


_KINDS: dict[Callable[[str], object], str] = {
    _port: "a port number from 1 to 65535",
    _seconds: "a number of seconds above 0",
    _path: "the path of a folder",
}


def setting(name: str, kind: Callable[[str], T], default: T, environment: Mapping[str, str] = os.environ) -> T:
    """The value of one environment variable, or its default where it is not set.

    Args:
        name: the variable.
        kind: turns the variable's text into a value and raises ``ValueError`` for any other text; a key of ``_KINDS``.
        default: the value without the variable.
        environment: where variables are looked up.

    Raises:
        SettingError: the text cannot be used; the message has name, text and what is accepted.
    """
    text = environment.get(name)
    if text is None:
        return default
    try:
        return kind(text)
    except ValueError:
        raise SettingError(f"{name}={text!r} cannot be used: it must be {_KINDS[kind]}") from None


@dataclasses.dataclass(frozen=True)
class Port:
    """One port of the service.

    Attributes:
        name: what listens there, in a word or two.
        variable: the environment variable that changes it.
        number: 1 to 65535.
    """

    name: str
    variable: str
    number: int

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{HOST}:{self.number}"

    @property
    def url(self) -> str:
        """Its address over HTTP, without a slash at the end."""
        return f"http://{self.address}"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where one service listens and keeps its files.

    Attributes:
        gateway, grpc: the public side (HTTP, Open Inference Protocol over gRPC).
        inference, management, metrics: TorchServe's HTTP APIs.
        ts_grpc, ts_grpc_management: TorchServe's own gRPC APIs.
        model_store: folder of the archives (``.mar``).
        run: folder of the running service's state; made when needed.
        logs: folder of its logs; made when needed.
        start_timeout: seconds that one process may take to be ready.
    """

    gateway: Port
    grpc: Port
    inference: Port
    management: Port
    metrics: Port
    ts_grpc: Port
    ts_grpc_management: Port
    model_store: Path
    run: Path
    logs: Path
    start_timeout: float

    @property
    def ports(self) -> tuple[Port, ...]:
        """All ports, the public ones first."""
        return (
            *(self.gateway, self.grpc, self.inference, self.management, self.metrics),
            *(self.ts_grpc, self.ts_grpc_management),
        )


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings that an environment asks for.

    Raises:
        SettingError: a variable cannot be used, or two ports are the same.
    """

    def port(name: str, variable: str, default: int) -> Port:
        return Port(name, variable, setting(variable, _port, default, environment))

    settings = Settings(
        gateway=port("gateway", "FASHION_GATEWAY_PORT", 8000),
        grpc=port("gRPC", "FASHION_GRPC_PORT", 8001),
        inference=port("inference", "FASHION_INFERENCE_PORT", 8080),
        management=port("management", "FASHION_MANAGEMENT_PORT", 8081),
        metrics=port("metrics", "FASHION_METRICS_PORT", 8082),
        ts_grpc=port("TorchServe gRPC", "FASHION_TS_GRPC_PORT", 7070),
        ts_grpc_management=port("TorchServe gRPC management", "FASHION_TS_GRPC_MANAGEMENT_PORT", 7071),
        model_store=setting("FASHION_MODEL_STORE", _path, ROOT / "model_store", environment),
        run=setting("FASHION_RUN_DIR", _path, ROOT / "run", environment),
        logs=setting("FASHION_LOG_DIR", _path, ROOT / "logs", environment),
        start_timeout=setting("FASHION_START_TIMEOUT", _seconds, 120.0, environment),
    )
    taken: dict[int, Port] = {}
    for each in settings.ports:
        if each.number in taken:
            other = taken[each.number]
            raise SettingError(f"{other.variable} and {each.variable} are both {each.number}; ports must differ")
        taken[each.number] = each
    return settings
