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
# Where workers count what they do; as in handlers/metrics/recorder.py.
COUNTS_VARIABLE = "FASHION_COUNTS_DIR"
# FASHION_LOG_DIR of a container: the engine keeps what the service prints.
STDOUT = Path("/dev/stdout")


def _number(convert: Callable[[str], float], least: float, most: float = sys.float_info.max) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = convert(text)
        if not least <= value <= most:
            raise ValueError
        return value

    return read


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _host(text: str) -> str:
    if re.fullmatch(r"[A-Za-z]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", text):
        return text
    # nginx takes no zone, as in fe80::1%eth0.
    return str(ipaddress.ip_address(text.replace("%", " ")))


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a variable may hold.

    Attributes:
        read: turns text into a value, and raises ``ValueError`` or ``KeyError`` for any other text.
        accepted: what it takes, in words.
    """

    read: Callable[[str], Any]
    accepted: str


PORT = Kind(_number(int, 1, 65535), "a port number from 1 to 65535")
RATE = Kind(_number(int, 1), "a whole number of requests a second, 1 or more")
TIME = Kind(_number(float, 0.001), "a number of seconds above 0")
DELAY = Kind(_number(float, 0), "a number of seconds, 0 or more")
PATH = Kind(_path, "the path of a file or folder")
HOST_NAME = Kind(_host, "a host name or an IP address")
NGINX = Kind(lambda text: text if text in ("system", "wheel") else str(_path(text)), "system, wheel or a path")
SWITCH = Kind({"0": False, "1": True}.__getitem__, "1 for yes or 0 for no")
DEVICE = Kind({"cpu": "cpu", "gpu": "gpu"}.__getitem__, "cpu or gpu")
WIRE = Kind({"torchserve": "torchserve"}.__getitem__, "torchserve")


@dataclasses.dataclass(frozen=True)
class Option:
    """How a setting is read and described.

    Attributes:
        variable: the environment variable.
        kind: what it may hold.
        default: the value without the variable.
        meaning: in a few words.
        without: what holds without the variable, where the default does not say it.
        name: what listens there, if it is a port.
    """

    variable: str
    kind: Kind
    default: Any
    meaning: str
    without: str = ""
    name: str = ""

    def read(self, environment: Mapping[str, str]) -> Any:
        """The value in an environment. An empty variable counts as unset: Compose passes unset ones on as empty ones.

        Raises:
            SettingError: the text cannot be used; the message has name, text and what is accepted.
        """
        text = environment.get(self.variable, "")
        # Kubernetes sets such variables for a service that has this name.
        if not text or (self.kind is PORT and text.startswith(("tcp://", "udp://"))):
            return self.default
        try:
            return self.kind.read(text)
        except (ValueError, KeyError):
            raise SettingError(f"{self.variable}={text!r} cannot be used: it must be {self.kind.accepted}") from None

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
    return _option(variable, PORT, default, meaning, "", name)


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
    gateway_status: Port = _port_option("gateway status", "FASHION_GATEWAY_STATUS_PORT", 8003, "port for monitoring")
    grpc_bridge: Port = _port_option("gRPC bridge", "FASHION_GRPC_BRIDGE_PORT", 8004, "port of the gRPC bridge")
    inference: Port = _port_option("inference", "FASHION_INFERENCE_PORT", 8080, "port of TorchServe's inference API")
    management: Port = _port_option("management", "FASHION_MANAGEMENT_PORT", 8081, "port of its management API")
    metrics: Port = _port_option("metrics", "FASHION_METRICS_PORT", 8082, "port of its metrics API")
    ts_grpc: Port = _port_option("TorchServe gRPC", "FASHION_TS_GRPC_PORT", 7070, "port of its gRPC API")
    ts_grpc_management: Port = _port_option(
        "TorchServe gRPC management", "FASHION_TS_GRPC_MANAGEMENT_PORT", 7071, "port of its gRPC management API"
    )
    listen: str = _option("FASHION_LISTEN", HOST_NAME, HOST, "address of the public ports; :: is every one, IPv6 too")
    api_keys: Path | None = _option("FASHION_API_KEYS", PATH, None, "file of the keys that callers need", "none needed")
    certificates: Path | None = _option(
        "FASHION_CERTIFICATES", PATH, None, "folder of gateway.crt and gateway.key", "none, so no TLS"
    )
    rate_limit: int | None = _option("FASHION_RATE_LIMIT", RATE, None, "requests a second of one client", "any number")
    tokens: bool = _option("FASHION_TOKENS", SWITCH, False, "1: TorchServe asks for tokens on every API of its own")
    model_store: Path = _option("FASHION_MODEL_STORE", PATH, ROOT / "model_store", "folder of the archives")
    run: Path = _option("FASHION_RUN_DIR", PATH, ROOT / "run", "folder of the running service's state")
    logs: Path = _option("FASHION_LOG_DIR", PATH, ROOT / "logs", f"folder of its logs; {STDOUT}: they are printed")
    device_type: str | None = _option(
        "FASHION_DEVICE_TYPE", DEVICE, None, "what workers must compute on, cpu or gpu", "a GPU where there is one"
    )
    nginx: str | None = _option(
        "FASHION_NGINX", NGINX, None, "system, wheel or a path", "the system's if new enough, else the wheel's"
    )
    fork_server: bool = _option("FASHION_FORK", SWITCH, True, "0: each worker imports torch by itself")
    # Read by the handlers, which inherit it.
    wire: str | None = _option("FASHION_WIRE", WIRE, None, "torchserve: workers read by TorchServe's code", "their own")
    start_timeout: float = _option("FASHION_START_TIMEOUT", TIME, 120.0, "seconds that one part may take to be ready")
    # Longer than a garbage collection or a rush takes.
    hang_timeout: float = _option("FASHION_HANG_TIMEOUT", TIME, 20.0, "seconds of silence after which a part is killed")
    backoff: float = _option("FASHION_BACKOFF", TIME, 1.0, "seconds before a second try at a part; then longer, to 60")
    drain_delay: float = _option("FASHION_DRAIN_DELAY", DELAY, 0.0, "seconds of 503 at /readyz before a stop begins")

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
        if option.kind is not PORT:
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
