"""The settings of the service: the one module of ``serving`` that reads their environment variables.

    python -m serving.settings markdown|env     print the table of docs/operations.md, or the lines of .env.example

Each field of ``Settings`` names its environment variable. The gateway's public ports listen on ``FASHION_LISTEN``, all
others on the loopback address.
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
# The workers write their counter files there; handlers/metrics/recorder.py has the same name.
COUNTS_VARIABLE = "FASHION_COUNTS_DIR"
# The workers write their part of traces there; handlers/metrics/traces.py has the same name.
TRACES_VARIABLE = "FASHION_TRACES_FILE"
# FASHION_LOG_DIR in a container, whose engine keeps the output.
STDOUT = Path("/dev/stdout")
# As a browser sends it: without a path.
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
_URL = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?(/[!-~]*)?")


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
    # nginx accepts no zone, such as %eth0 in fe80::1%eth0. The space makes ip_address reject it.
    return str(ipaddress.ip_address(text.replace("%", " ")))


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(text.replace(",", " ").lower().split())
    if origins != ("*",) and not all(_ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError
    return origins


def _url(text: str) -> str:
    if not _URL.fullmatch(text):
        raise ValueError
    return text.rstrip("/")


@dataclasses.dataclass(frozen=True)
class Kind:
    """The type of a setting.

    Attributes:
        read: converts text to a value; raises ``ValueError`` or ``KeyError`` for invalid text.
        accepted: the valid values, in words.
    """

    read: Callable[[str], Any]
    accepted: str


PORT = Kind(_number(int, 1, 65535), "a port number from 1 to 65535")
ORIGINS = Kind(_origins, "origins such as https://shop.example, separated by spaces, or *")
RATE = Kind(_number(int, 1), "a whole number of requests per second, 1 or more")
TIME = Kind(_number(float, 0.001), "a number of seconds above 0")
DELAY = Kind(_number(float, 0), "a number of seconds, 0 or more")
PATH = Kind(_path, "the path of a file or folder")
HOST_NAME = Kind(_host, "a host name or an IP address")
NGINX = Kind(lambda text: text if text in ("system", "wheel") else str(_path(text)), "system, wheel, or a path")
SWITCH = Kind({"0": False, "1": True}.__getitem__, "1 for yes or 0 for no")
DEVICE = Kind({"cpu": "cpu", "gpu": "gpu"}.__getitem__, "cpu or gpu")
URL = Kind(_url, "a URL such as http://127.0.0.1:4318")
RATIO = Kind(_number(float, 0, 1), "a number from 0 to 1")
WIRE = Kind({"torchserve": "torchserve"}.__getitem__, "torchserve")


@dataclasses.dataclass(frozen=True)
class Option:
    """One setting: its variable, type, default, and description.

    Attributes:
        variable: the environment variable.
        kind: the type.
        default: the value without the variable.
        meaning: the description, in a few words.
        default_text: the default in words, where the value itself does not explain it.
        name: of the listener, if the setting is a port.
    """

    variable: str
    kind: Kind
    default: Any
    meaning: str
    default_text: str = ""
    name: str = ""

    def read(self, environment: Mapping[str, str]) -> Any:
        """The value in an environment. An empty variable counts as unset, because Compose sets unset variables to "".

        Raises:
            SettingError: the variable has an invalid value.
        """
        text = environment.get(self.variable, "")
        # Kubernetes sets variables such as FASHION_GRPC_PORT=tcp://… for a Service with the name fashion-grpc.
        if not text or (self.kind is PORT and text.startswith(("tcp://", "udp://"))):
            return self.default
        try:
            return self.kind.read(text)
        except (ValueError, KeyError):
            raise SettingError(f"{self.variable} must be {self.kind.accepted}, got {text!r}") from None

    @property
    def shown(self) -> str:
        """The default, for people."""
        if isinstance(self.default, Path):
            return f"./{self.default.relative_to(ROOT)}"
        # ":g" prints 120 for 120.0, and 1 for True.
        text = f"{self.default:g}" if isinstance(self.default, float | bool) else str(self.default)
        return self.default_text or text


def _option(*values: Any) -> Any:
    return dataclasses.field(metadata={"option": Option(*values)})


def _port_option(name: str, variable: str, default: int, meaning: str) -> Any:
    return _option(variable, PORT, default, meaning, "", name)


def bracketed(host: str) -> str:
    """A host as written before a port: an IPv6 address gets brackets."""
    return f"[{host}]" if ":" in host else host


@dataclasses.dataclass(frozen=True)
class Port:
    """One port of the service.

    Attributes:
        name: of the listener.
        variable: the environment variable that sets the port.
        number: 1 to 65535.
        host: the address for clients on this machine.
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
        """The HTTP URL, without a slash at the end."""
        return f"http://{self.address}"


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of one service: ports, folders, access, and timeouts."""

    gateway: Port = _port_option("gateway", "FASHION_GATEWAY_PORT", 8000, "gateway: HTTP port")
    grpc: Port = _port_option("gRPC", "FASHION_GRPC_PORT", 8001, "gateway: gRPC port (Open Inference Protocol)")
    frontdoor: Port = _port_option("front door", "FASHION_FRONTDOOR_PORT", 8002, "front door: port")
    gateway_status: Port = _port_option("gateway status", "FASHION_GATEWAY_STATUS_PORT", 8003, "gateway: status port")
    grpc_bridge: Port = _port_option("gRPC bridge", "FASHION_GRPC_BRIDGE_PORT", 8004, "gRPC bridge: port")
    inference: Port = _port_option("inference", "FASHION_INFERENCE_PORT", 8080, "TorchServe: inference port")
    management: Port = _port_option("management", "FASHION_MANAGEMENT_PORT", 8081, "TorchServe: management port")
    metrics: Port = _port_option("metrics", "FASHION_METRICS_PORT", 8082, "TorchServe: metrics port")
    ts_grpc: Port = _port_option("TorchServe gRPC", "FASHION_TS_GRPC_PORT", 7070, "TorchServe: gRPC port")
    ts_grpc_management: Port = _port_option(
        "TorchServe gRPC management", "FASHION_TS_GRPC_MANAGEMENT_PORT", 7071, "TorchServe: gRPC management port"
    )
    listen: str = _option("FASHION_LISTEN", HOST_NAME, HOST, "address of the public ports; :: for all IPv4 and IPv6")
    api_keys: Path | None = _option("FASHION_API_KEYS", PATH, None, "file of API keys", "none, all callers allowed")
    certificates: Path | None = _option(
        "FASHION_CERTIFICATES", PATH, None, "folder of gateway.crt and gateway.key", "none, no TLS"
    )
    cors_origins: tuple[str, ...] = _option(
        "FASHION_CORS_ORIGINS", ORIGINS, (), "origins whose pages may call the service; * for all", "none"
    )
    rate_limit: int | None = _option("FASHION_RATE_LIMIT", RATE, None, "requests per second per client", "no limit")
    tokens: bool = _option("FASHION_TOKENS", SWITCH, False, "1: TorchServe's own APIs require tokens")
    model_store: Path = _option("FASHION_MODEL_STORE", PATH, ROOT / "model_store", "folder of the archives")
    store_key: Path | None = _option(
        "FASHION_STORE_KEY", PATH, None, "file of public keys, one of which must verify the index", "none, no signature"
    )
    run: Path = _option("FASHION_RUN_DIR", PATH, ROOT / "run", "folder of the service's state")
    logs: Path = _option("FASHION_LOG_DIR", PATH, ROOT / "logs", f"folder of the logs; {STDOUT} prints them")
    device_type: str | None = _option(
        "FASHION_DEVICE_TYPE", DEVICE, None, "device that workers must use, cpu or gpu", "gpu if available"
    )
    nginx: str | None = _option(
        "FASHION_NGINX", NGINX, None, "nginx: system, wheel, or a path", "system if new enough, else wheel"
    )
    fork_server: bool = _option("FASHION_FORK", SWITCH, True, "1: fork workers; 0: each imports torch itself")
    # The handlers read this variable themselves.
    wire: str | None = _option(
        "FASHION_WIRE", WIRE, None, "torchserve: workers use TorchServe's protocol code", "their own"
    )
    otlp_endpoint: str | None = _option(
        "FASHION_OTLP_ENDPOINT", URL, None, "OpenTelemetry collector for traces, OTLP over HTTP", "none, no traces"
    )
    trace_ratio: float = _option(
        "FASHION_TRACE_RATIO", RATIO, 0.01, "share of requests to trace, 0 to 1, where the caller does not decide"
    )
    start_timeout: float = _option("FASHION_START_TIMEOUT", TIME, 120.0, "seconds until a new process must be ready")
    # Longer than a garbage collection or an overload keeps a process from answering.
    hang_timeout: float = _option("FASHION_HANG_TIMEOUT", TIME, 20.0, "seconds a process may hang before it is killed")
    backoff: float = _option("FASHION_BACKOFF", TIME, 1.0, "seconds before the second restart attempt; doubles to 60")
    drain_delay: float = _option("FASHION_DRAIN_DELAY", DELAY, 0.0, "seconds of 503 at /readyz before a stop begins")
    fleet: bool = _option("FASHION_FLEET", SWITCH, False, "1: a replica of a fleet: no rollouts, and short connections")

    @property
    def ports(self) -> tuple[Port, ...]:
        """All ports, the public ones first."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return tuple(value for value in values if isinstance(value, Port))

    @property
    def counts(self) -> Path:
        """Folder of the workers' counter files."""
        return self.run / "counts"

    @property
    def traces(self) -> Path:
        """File to which nginx and the workers write what the front door makes traces of."""
        return self.run / "traces.log"

    @property
    def key_file(self) -> Path:
        """TorchServe's file of tokens, which it writes into its working directory."""
        return self.run / "key_file.json"

    @property
    def gateway_url(self) -> str:
        """The gateway's HTTP or HTTPS URL, without a slash at the end."""
        return f"{'https' if self.certificates else 'http'}://{self.gateway.address}"

    def log(self, name: str) -> Path:
        """The path of one log."""
        return STDOUT if self.logs == STDOUT else self.logs / name


def options() -> Iterator[tuple[str, Option]]:
    """Each setting: its field in ``Settings``, and its option."""
    for field in dataclasses.fields(Settings):
        yield field.name, field.metadata["option"]


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from an environment.

    Raises:
        SettingError: a variable has an invalid value, or two ports are equal.
    """
    values = {name: option.read(environment) for name, option in options()}
    # Clients cannot connect to a wildcard address. It includes loopback.
    public_host = HOST if values["listen"] in ("0.0.0.0", "::") else values["listen"]  # noqa: S104 - binds nothing
    taken: dict[int, str] = {}
    for name, option in options():
        if option.kind is not PORT:
            continue
        number = values[name]
        if number in taken:
            raise SettingError(f"{taken[number]} and {option.variable} must differ, both are {number}")
        taken[number] = option.variable
        host = public_host if name in _PUBLIC else HOST
        values[name] = Port(option.name, option.variable, number, host)
    return Settings(**values)


def help_text() -> str:
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
