"""Every setting of the service: the one place that names them.

    python -m serving.settings markdown|env     the table of docs/operations.md, the lines of .env.example

Each field of ``Settings`` names the environment variable that changes it. The gateway's public ports listen on
``FASHION_LISTEN``, everything else on the loopback address.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from serving.errors import SettingError

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
# The ports that listen on FASHION_LISTEN.
_PUBLIC = ("gateway", "grpc", "gateway_status")
# Where workers count what they do; as in handlers/metrics.py.
COUNTS_VARIABLE = "FASHION_COUNTS_DIR"
# FASHION_LOG_DIR of a container: the engine keeps what the service prints.
STDOUT = Path("/dev/stdout")


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise ValueError
    return port


def _positive(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds


def _seconds(text: str) -> float:
    return 0.0 if float(text) == 0 else _positive(text)


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _host(text: str) -> str:
    if re.fullmatch(r"[A-Za-z]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", text):
        return text
    # nginx takes no zone, as in fe80::1%eth0.
    return str(ipaddress.ip_address(text.replace("%", " ")))


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


def _wire(text: str) -> str:
    if text != "torchserve":
        raise ValueError
    return text


_KINDS: dict[Callable[[str], object], str] = {
    _port: "a port number from 1 to 65535",
    _positive: "a number of seconds above 0",
    _seconds: "a number of seconds, 0 or more",
    _path: "the path of a file or folder",
    _host: "a host name or an IP address",
    _nginx: "system, wheel or the path of an nginx program",
    _rate: "a whole number of requests a second, 1 or more",
    _device: "cpu or gpu",
    _wire: "torchserve",
    _switch: "1 for yes or 0 for no",
}


@dataclasses.dataclass(frozen=True)
class Option:
    """How a setting is read and described.

    Attributes:
        variable: the environment variable.
        kind: turns its text into a value and raises ``ValueError`` or ``KeyError`` for any other text.
        default: the value without the variable.
        meaning: in a few words.
        without: what holds without the variable, where the default does not say it.
        name: what listens there, if it is a port.
    """

    variable: str
    kind: Callable[[str], Any]
    default: Any
    meaning: str
    without: str = ""
    name: str = ""

    def read(self, environment: Mapping[str, str]) -> Any:
        """The value in an environment; an empty variable is as good as none, as Compose makes it.

        Raises:
            SettingError: the text cannot be used; the message has name, text and what is accepted.
        """
        text = environment.get(self.variable, "")
        # Kubernetes sets such variables for a service that has this name.
        if not text or (self.kind is _port and text.startswith(("tcp://", "udp://"))):
            return self.default
        try:
            return self.kind(text)
        except (ValueError, KeyError):
            raise SettingError(f"{self.variable}={text!r} cannot be used: it must be {_KINDS[self.kind]}") from None

    @property
    def shown(self) -> str:
        """The default, for people."""
        if isinstance(self.default, Path):
            return f"./{self.default.relative_to(ROOT)}"
        # 120 and not 120.0, 1 and not True.
        return self.without or (f"{self.default:g}" if isinstance(self.default, float | bool) else str(self.default))


def _option(*values: Any) -> Any:
    return dataclasses.field(metadata={"option": Option(*values)})


def _port_option(name: str, variable: str, default: int, meaning: str) -> Any:
    return _option(variable, _port, default, meaning, "", name)


def bracketed(host: str) -> str:
    """A host as it stands before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


@dataclasses.dataclass(frozen=True)
class Port:
    """One port of the service.

    Attributes:
        name: what listens there, in a word or two.
        variable: the environment variable that changes it.
        number: 1 to 65535.
        host: where this machine finds it.
    """

    name: str
    variable: str
    number: int
    host: str = HOST

    @property
    def address(self) -> str:
        """``host:port``, with an IPv6 host in brackets."""
        return f"{bracketed(self.host)}:{self.number}"

    @property
    def url(self) -> str:
        """Its address over HTTP, without a slash at the end."""
        return f"http://{self.address}"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where one service listens, keeps its files, and what it asks of callers."""

    gateway: Port = _port_option("gateway", "FASHION_GATEWAY_PORT", 8000, "port of HTTP, for callers")
    grpc: Port = _port_option("gRPC", "FASHION_GRPC_PORT", 8001, "port of the Open Inference Protocol over gRPC")
    frontdoor: Port = _port_option("front door", "FASHION_FRONTDOOR_PORT", 8002, "port of the front door")
    gateway_status: Port = _port_option(
        "gateway status", "FASHION_GATEWAY_STATUS_PORT", 8003, "port of metrics and of /readyz, for who watches"
    )
    grpc_bridge: Port = _port_option("gRPC bridge", "FASHION_GRPC_BRIDGE_PORT", 8004, "port of the gRPC bridge")
    inference: Port = _port_option("inference", "FASHION_INFERENCE_PORT", 8080, "port of TorchServe's inference API")
    management: Port = _port_option("management", "FASHION_MANAGEMENT_PORT", 8081, "port of its management API")
    metrics: Port = _port_option("metrics", "FASHION_METRICS_PORT", 8082, "port of its metrics API")
    ts_grpc: Port = _port_option("TorchServe gRPC", "FASHION_TS_GRPC_PORT", 7070, "port of its own gRPC API")
    ts_grpc_management: Port = _port_option(
        "TorchServe gRPC management", "FASHION_TS_GRPC_MANAGEMENT_PORT", 7071, "port of its gRPC management API"
    )
    listen: str = _option("FASHION_LISTEN", _host, HOST, "address that public ports listen on; :: is all, IPv6 too")
    api_keys: Path | None = _option(
        "FASHION_API_KEYS", _path, None, "file of the keys that the gateway asks for", "none, so anybody may ask"
    )
    certificates: Path | None = _option(
        "FASHION_CERTIFICATES", _path, None, "folder of gateway.crt and gateway.key", "none, so no TLS"
    )
    rate_limit: int | None = _option(
        "FASHION_RATE_LIMIT", _rate, None, "requests a second that one client may send", "any number"
    )
    tokens: bool = _option("FASHION_TOKENS", _switch, False, "1: TorchServe asks for tokens on every API of its own")
    model_store: Path = _option("FASHION_MODEL_STORE", _path, ROOT / "model_store", "folder of the archives")
    run: Path = _option("FASHION_RUN_DIR", _path, ROOT / "run", "folder of the running service's state")
    logs: Path = _option("FASHION_LOG_DIR", _path, ROOT / "logs", f"folder of its logs; {STDOUT}: they are printed")
    device_type: str | None = _option(
        "FASHION_DEVICE_TYPE", _device, None, "what workers must compute on, cpu or gpu", "a GPU where there is one"
    )
    nginx: str | None = _option(
        "FASHION_NGINX", _nginx, None, "system, wheel or a path", "the system's if new enough, else the wheel's"
    )
    fork_server: bool = _option("FASHION_FORK", _switch, True, "0: each worker imports torch by itself")
    # Read by the handlers, which inherit it.
    wire: str | None = _option(
        "FASHION_WIRE", _wire, None, "torchserve: workers read requests by TorchServe's own code", "their own reader"
    )
    start_timeout: float = _option(
        "FASHION_START_TIMEOUT", _positive, 120.0, "seconds that one part may take to be ready"
    )
    # Longer than a garbage collection or a rush takes.
    hang_timeout: float = _option(
        "FASHION_HANG_TIMEOUT", _positive, 20.0, "seconds of silence after which a part is killed"
    )
    backoff: float = _option(
        "FASHION_BACKOFF",
        _positive,
        1.0,
        "seconds before the second attempt to start a part; each later one waits longer, up to 60",
    )
    drain_delay: float = _option(
        "FASHION_DRAIN_DELAY", _seconds, 0.0, "seconds between the 503 of /readyz and the end of listening, at a stop"
    )

    @property
    def ports(self) -> tuple[Port, ...]:
        """All ports, the public ones first."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return tuple(value for value in values if isinstance(value, Port))

    @property
    def counts(self) -> Path:
        """Folder in which workers count."""
        return self.run / "counts"

    @property
    def key_file(self) -> Path:
        """Where TorchServe leaves its tokens: it writes them into its working directory."""
        return self.run / "key_file.json"

    @property
    def gateway_url(self) -> str:
        """The gateway's address over HTTP or HTTPS, without a slash at the end."""
        return f"{'https' if self.certificates else 'http'}://{self.gateway.address}"

    def log(self, name: str) -> Path:
        """Where one of the logs goes."""
        return STDOUT if self.logs == STDOUT else self.logs / name


def options() -> Iterator[tuple[str, Option]]:
    """Every setting: the field's name and how it is read."""
    for field in dataclasses.fields(Settings):
        yield field.name, field.metadata["option"]


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings that an environment asks for.

    Raises:
        SettingError: a variable cannot be used, or two ports are the same.
    """
    values = {name: option.read(environment) for name, option in options()}
    # A wildcard is no destination, but includes loopback.
    public_host = HOST if values["listen"] in ("0.0.0.0", "::") else values["listen"]
    taken: dict[int, str] = {}
    for name, option in options():
        if option.kind is not _port:
            continue
        number = values[name]
        if number in taken:
            raise SettingError(f"{taken[number]} and {option.variable} are both {number}; ports must differ")
        taken[number] = option.variable
        host = public_host if name in _PUBLIC else HOST
        values[name] = Port(option.name, option.variable, number, host)
    return Settings(**values)


def described() -> str:
    """The variables for ``--help``."""
    lines = [f"  {option.variable:<32} {option.meaning} (default {option.shown})" for _, option in options()]
    return "\n".join(["environment variables:", *lines])


def main(form: str) -> str:
    """The settings as a table in Markdown, or as lines for ``.env.example``."""
    if form == "markdown":
        rows = [f"| `{option.variable}` | {option.meaning} | {option.shown} |" for _, option in options()]
        return "\n".join(["| variable | meaning | default |", "|---|---|---|", *rows])
    return "\n".join(f"# {option.meaning}; default: {option.shown}\n#{option.variable}=" for _, option in options())


if __name__ == "__main__":
    print(main(sys.argv[1]))
