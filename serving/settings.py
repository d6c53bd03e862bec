"""Ports, addresses and folders of the local service: the one place that names them.

Everything listens on the loopback address, and is looked for there; only the gateway is meant for callers. In
containers each process listens on its own network's addresses and finds the others by name. Each value can be changed
by an environment variable; ``python -m serving --help`` lists them.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from serving.errors import SettingError

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
# Where workers count what they do; as in handlers/metrics.py, which the gateway's container does not have.
COUNTS_VARIABLE = "FASHION_COUNTS_DIR"


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


def _host(text: str) -> str:
    # What nginx's configuration, config.properties and URLs take as it is.
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?", text):
        raise ValueError
    return text


def _nginx(text: str) -> str:
    return text if text in ("system", "wheel") else str(_path(text))


def _rate(text: str) -> int:
    rate = int(text)
    if rate < 1:
        raise ValueError
    return rate


def _switch(text: str) -> bool:
    return {"0": False, "1": True}[text]


def _device(text: str) -> str:
    if text not in ("cpu", "gpu"):
        raise ValueError
    return text


_KINDS: dict[Callable[[str], object], str] = {
    _port: "a port number from 1 to 65535",
    _seconds: "a number of seconds above 0",
    _path: "the path of a file or folder",
    _host: "a host name or an IPv4 address",
    _nginx: "system, wheel or the path of an nginx program",
    _rate: "a whole number of requests a second, 1 or more",
    _device: "cpu or gpu",
    _switch: "1 for yes or 0 for no",
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
    except (ValueError, KeyError):
        raise SettingError(f"{name}={text!r} cannot be used: it must be {_KINDS[kind]}") from None


@dataclasses.dataclass(frozen=True)
class Port:
    """One port of the service.

    Attributes:
        name: what listens there, in a word or two.
        variable: the environment variable that changes it.
        number: 1 to 65535.
        host: where others find it.
    """

    name: str
    variable: str
    number: int
    host: str = HOST

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.number}"

    @property
    def url(self) -> str:
        """Its address over HTTP, without a slash at the end."""
        return f"http://{self.address}"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where one service listens and keeps its files.

    Attributes:
        gateway, grpc: the public side (HTTP, Open Inference Protocol over gRPC).
        frontdoor: what answers for the gateway about models and readiness.
        gateway_status: nginx's own numbers, for those who watch the service.
        inference, management, metrics: TorchServe's HTTP APIs.
        ts_grpc, ts_grpc_management: TorchServe's own gRPC APIs.
        model_store: folder of the archives (``.mar``).
        run: folder of the running service's state; made when needed.
        logs: folder of its logs; made when needed.
        counts: folder in which workers count; made when needed.
        start_timeout: seconds that one process may take to be ready.
        hang_timeout: seconds without an answer after which the supervisor kills TorchServe's frontend.
        backoff: seconds before the supervisor's second attempt in a row; each further one waits twice as long.
        api_keys: file of the keys that the gateway asks for; ``None`` lets everybody in.
        nginx: which nginx the gateway is, as ``serving.nginx.find`` takes it.
        certificates: folder of ``gateway.crt`` and ``gateway.key``, which make the gateway speak TLS.
        rate_limit: requests a second that the gateway takes from one client; ``None`` for any number.
        tokens: TorchServe asks for tokens of its own on every API (``serving/tokens.py``).
        device_type: what workers must compute on, ``cpu`` or ``gpu``; ``None`` for a GPU where TorchServe finds one.
        listen: the address that the processes of this machine, or of this container, listen on.
    """

    gateway: Port
    grpc: Port
    frontdoor: Port
    gateway_status: Port
    inference: Port
    management: Port
    metrics: Port
    ts_grpc: Port
    ts_grpc_management: Port
    model_store: Path
    run: Path
    logs: Path
    counts: Path
    start_timeout: float
    hang_timeout: float
    backoff: float
    api_keys: Path | None
    nginx: str | None
    certificates: Path | None
    rate_limit: int | None
    tokens: bool
    device_type: str | None
    listen: str

    @property
    def ports(self) -> tuple[Port, ...]:
        """All ports, the public ones first."""
        return (
            *(self.gateway, self.grpc, self.frontdoor, self.gateway_status),
            *(self.inference, self.management, self.metrics, self.ts_grpc, self.ts_grpc_management),
        )

    @property
    def key_file(self) -> Path:
        """Where TorchServe leaves its tokens: it writes them into its working directory."""
        return self.run / "key_file.json"

    @property
    def gateway_url(self) -> str:
        """The gateway's address over HTTP or HTTPS, without a slash at the end."""
        return f"{'https' if self.certificates else 'http'}://{self.gateway.address}"


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings that an environment asks for.

    Raises:
        SettingError: a variable cannot be used, or two ports are the same.
    """

    def host(variable: str) -> str:
        return setting(variable, _host, HOST, environment)

    def port(name: str, variable: str, default: int, host: str = HOST) -> Port:
        return Port(name, variable, setting(variable, _port, default, environment), host)

    torchserve = host("FASHION_TORCHSERVE_HOST")
    run = setting("FASHION_RUN_DIR", _path, ROOT / "run", environment)

    settings = Settings(
        gateway=port("gateway", "FASHION_GATEWAY_PORT", 8000),
        grpc=port("gRPC", "FASHION_GRPC_PORT", 8001, host("FASHION_GRPC_HOST")),
        frontdoor=port("front door", "FASHION_FRONTDOOR_PORT", 8002, host("FASHION_FRONTDOOR_HOST")),
        gateway_status=port("gateway status", "FASHION_GATEWAY_STATUS_PORT", 8003, host("FASHION_GATEWAY_HOST")),
        inference=port("inference", "FASHION_INFERENCE_PORT", 8080, torchserve),
        management=port("management", "FASHION_MANAGEMENT_PORT", 8081, torchserve),
        metrics=port("metrics", "FASHION_METRICS_PORT", 8082, torchserve),
        ts_grpc=port("TorchServe gRPC", "FASHION_TS_GRPC_PORT", 7070, torchserve),
        ts_grpc_management=port("TorchServe gRPC management", "FASHION_TS_GRPC_MANAGEMENT_PORT", 7071, torchserve),
        model_store=setting("FASHION_MODEL_STORE", _path, ROOT / "model_store", environment),
        run=run,
        logs=setting("FASHION_LOG_DIR", _path, ROOT / "logs", environment),
        counts=setting(COUNTS_VARIABLE, _path, run / "counts", environment),
        start_timeout=setting("FASHION_START_TIMEOUT", _seconds, 120.0, environment),
        # Longer than a garbage collection or a rush takes.
        hang_timeout=setting("FASHION_HANG_TIMEOUT", _seconds, 20.0, environment),
        backoff=setting("FASHION_BACKOFF", _seconds, 1.0, environment),
        api_keys=setting("FASHION_API_KEYS", _path, None, environment),
        nginx=setting("FASHION_NGINX", _nginx, None, environment),
        certificates=setting("FASHION_CERTIFICATES", _path, None, environment),
        rate_limit=setting("FASHION_RATE_LIMIT", _rate, None, environment),
        tokens=setting("FASHION_TOKENS", _switch, False, environment),
        device_type=setting("FASHION_DEVICE_TYPE", _device, None, environment),
        listen=host("FASHION_LISTEN"),
    )
    taken: dict[int, Port] = {}
    for each in settings.ports:
        if each.number in taken:
            other = taken[each.number]
            raise SettingError(f"{other.variable} and {each.variable} are both {each.number}; ports must differ")
        taken[each.number] = each
    return settings
