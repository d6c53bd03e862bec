"""The gateway's configuration, rendered from ``serving/gateway/nginx/*.template`` into ``run/gateway``.

``nginx_binary.py`` finds the nginx that runs with it, and ``live_config.py`` writes the part that changes while it
runs. The gateway's logs are in the service's log folder.
"""

from __future__ import annotations

import grp
import logging
import os
import pwd
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from handlers import limits
from serving import cpu_quota, files, ports
from serving.errors import SettingError
from serving.gateway import live_config
from serving.gateway.nginx_binary import Nginx
from serving.settings import HOST, ROOT, Port, Settings, bracketed

logger = logging.getLogger("serving.gateway")

PAGES = ROOT / "web"
TEMPLATES = Path(__file__).with_name("nginx")

# Each worker allocates memory for its 10,000 connections at its start.
_MAX_WORKERS = 8
_HOST_IPV6 = "::1"
_SOCKET = "gateway.sock"
_VARIABLE = re.compile(r"\$\{([A-Z_]+)\}")
# In nginx's quoted strings, these end the string, start a variable, or escape.
_UNQUOTABLE = re.compile(r"[\"$\\\n]")
_KEY = re.compile(r"(?P<key>[0-9a-fA-F]{32,128})\s+(?P<caller>[A-Za-z][A-Za-z0-9._-]{0,63});")
# Callers' names with a meaning in nginx/keys.conf.template or in nginx's map blocks.
_RESERVED_NAMES = ("anybody", "nobody", "default", "hostnames", "include", "volatile")


def write_config(settings: Settings, nginx: Nginx, scratch: Path) -> Path:
    """Write nginx's configuration for these settings: the folder ``run/gateway``, one file for each template.

    Args:
        settings: addresses, folders, API keys, certificates and the rate limit.
        nginx: the program that will read the configuration.
        scratch: folder for its Unix socket; a short path.

    Returns:
        The main file, which includes the others.

    Raises:
        SettingError: the key file or the certificates cannot be used, or a path contains a character that nginx's
            configuration cannot.
    """
    folder = settings.run / "gateway"
    folder.mkdir(parents=True, exist_ok=True)
    live = live_config.live_file(settings)
    if not live.exists():
        # A placeholder, because nginx needs the file. During the start, TorchServe's probe (parts.py) replaces it.
        live_config.write(live, live_config.render({}, (), {}))
    # nginx cannot bind to a socket file that a killed nginx left behind.
    (scratch / _SOCKET).unlink(missing_ok=True)
    values = variables(settings, nginx, folder, scratch)
    for template in TEMPLATES.glob("*.template"):
        files.write_atomically(folder / template.stem, render(template.read_text(), values))
    return folder / "main.conf"


def render(template: str, values: Mapping[str, str]) -> str:
    """Replace each ``${NAME}`` by its value, as ``envsubst`` does.

    Raises:
        KeyError: a name has no value.
    """
    return _VARIABLE.sub(lambda match: values[match[1]], template)


def variables(settings: Settings, nginx: Nginx, folder: Path, scratch: Path) -> dict[str, str]:
    """The values of the templates' names.

    Args:
        settings, nginx: as for ``write_config``.
        folder: for nginx's own files.
        scratch: for its Unix socket.

    Raises:
        SettingError: as for ``write_config``.
    """
    return {
        "USER": _user(),
        "WORKERS": str(min(_MAX_WORKERS, cpu_quota.usable_cpus())),
        # Without TLS an older nginx can accept HTTP/1.1 or HTTP/2 on a port, not both.
        "LISTEN": _listen(settings, settings.gateway, nginx, bool(settings.certificates) or nginx.has_http2_directive),
        "TLS": _tls(settings.certificates) if settings.certificates else "",
        # Without the number, every request that is alone in flight counts as a lone caller's.
        "CONNECTIONS": "$connections_active" if nginx.has_stub_status else "1",
        "STATUS": "stub_status;" if nginx.has_stub_status else 'return 200 "built without stub_status\n";',
        "STATUS_LISTEN": _address(settings.listen, settings.gateway_status),
        "GRPC_LISTEN": _listen(settings, settings.grpc, nginx, http2=True),
        "GRPC_BRIDGE": settings.grpc_bridge.address,
        "INFERENCE": settings.inference.address,
        "FRONTDOOR": settings.frontdoor.address,
        "METRICS": settings.metrics.address,
        "RUN": _checked_path(folder),
        "LIVE": _checked_path(live_config.live_file(settings)),
        "SOCKET": _checked_path(scratch / _SOCKET),
        "PAGES": _checked_path(PAGES),
        "SWAGGER_UI": _checked_path(files.package("swagger_ui", "swagger-ui-py") / "static"),
        "ANSWERS": _checked_path(answers_log(settings)),
        "ACCESS_LOG": _checked_path(settings.log("access.log")),
        "BODY_BYTES": str(limits.REQUEST_BYTES),
        "CORS_ORIGINS": _cors_origins(settings.cors_origins),
        "CORS_VARY": "Origin" if settings.cors_origins else "",
        "CALLERS": _callers(settings.api_keys) if settings.api_keys else "default anybody;",
        "LIMITED": "on" if settings.rate_limit else "off",
        # Also the largest burst. Without a limit the value is not used, but nginx needs one.
        "RATE": str(settings.rate_limit or 1),
        # A Kubernetes Service chooses a replica for each connection. So connections end soon: new replicas get their
        # share, and a replica that drains (FASHION_DRAIN_DELAY) has hardly any left when it stops.
        "CONNECTION_TIME": "5s" if settings.fleet else "1h",
        "UNAVAILABLE_KEEPALIVE": "0" if settings.fleet else "75s",
        **_traces(settings),
    }


def answers_log(settings: Settings) -> Path:
    """The file to which nginx writes a line for each answer; ``serving/sidecars/metrics/gateway.py`` reads it."""
    return settings.run / "gateway" / "answers.log"


def command(nginx: Nginx, config: Path) -> list[str]:
    """Nginx's command line; it stays in the foreground and logs errors to stderr.

    Args:
        nginx: the program.
        config: what ``write_config`` wrote.
    """
    return [str(nginx.path), "-p", str(config.parent), "-c", str(config), "-e", "stderr", "-g", "daemon off;"]


def hosts(settings: Settings) -> tuple[str, ...]:
    """The addresses on which the gateway listens: by default both of ``localhost``, if this machine has IPv6."""
    both = settings.listen == HOST and ports.is_free(_HOST_IPV6, 0)
    return (HOST, _HOST_IPV6) if both else (settings.listen,)


def _listen(settings: Settings, port: Port, nginx: Nginx, http2: bool) -> str:
    """The parameters of nginx's ``listen``, and further directives, for a port that faces callers."""
    parameters = " ssl" * bool(settings.certificates) + " http2" * (http2 and not nginx.has_http2_directive)
    directives = "; listen ".join(_address(host, port) + parameters for host in hosts(settings))
    return directives + "; http2 on" * (http2 and nginx.has_http2_directive)


def _address(host: str, port: Port) -> str:
    """An address for nginx's ``listen``; the IPv6 wildcard also accepts IPv4."""
    return f"{bracketed(host)}:{port.number}" + " ipv6only=off" * (host == "::")


def _checked_path(path: Path) -> str:
    """The path for a quoted string of the configuration.

    Raises:
        SettingError: it contains a character that nginx would interpret.
    """
    if _UNQUOTABLE.search(str(path)):
        raise SettingError(f'{path}: nginx cannot use a path with a quotation mark, "$", a backslash or a line break')
    return str(path)


def _user() -> str:
    """The directive ``user`` for a service that runs as root.

    Without it nginx starts its workers as ``nobody``, who may not be able to read the pages.
    """
    if os.geteuid() != 0:
        return ""
    logger.warning("the service runs as root, and so do nginx's workers, which parse callers' requests")
    return f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getegid()).gr_name};"


def _tls(folder: Path) -> str:
    certificate, key = folder / "gateway.crt", folder / "gateway.key"
    for path in (certificate, key):
        if not path.is_file():
            raise SettingError(f"FASHION_CERTIFICATES: {path} does not exist; make a certificate with: make certs")
    return f'ssl_certificate "{_checked_path(certificate)}"; ssl_certificate_key "{_checked_path(key)}";'


def _traces(settings: Settings) -> dict[str, str]:
    """The values for ``nginx/traces.conf.template`` and for the places that use it."""
    traced = settings.otlp_endpoint is not None
    # Of split_clients, which takes hundredths of a percent but not 0.
    share = f"{100 * settings.trace_ratio:.2f}%"
    return {
        "INCLUDE_TRACES": "include traces.conf;" if traced else "",
        "INCLUDE_TRACED_SERVER": "include traced_server.conf;" if traced else "",
        "OWN_TRACEPARENT": "$own_traceparent" if traced else '""',
        "TRACE_SHARES": ("" if share == "0.00%" else f"{share} 01; ") + "* 00;",
        "TRACES": _checked_path(settings.traces),
    }


def _cors_origins(origins: Sequence[str]) -> str:
    """The entries of the map of origins in ``nginx/cors.conf.template``: origin → Access-Control-Allow-Origin."""
    # A request without an origin comes from no other page.
    return '"" "";' + " ".join('default "*";' if origin == "*" else f'"{origin}" $http_origin;' for origin in origins)


def _callers(path: Path) -> str:
    """The entries of the map of API keys in ``nginx/keys.conf.template``.

    The file's lines have the form of the map's entries, so nginx includes the file itself.
    """
    try:
        lines = path.read_text().splitlines()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"FASHION_API_KEYS: {path} cannot be read: {error}") from None
    # The group may read: Kubernetes mounts a secret for its group (fsGroup), with mode 440.
    if mode & 0o027:
        raise SettingError(f"FASHION_API_KEYS: other users can read or change {path}; run: chmod 600 {path}")
    if mode & 0o040:
        logger.warning("FASHION_API_KEYS: the group of %s can read it", path)
    keys = set()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _KEY.fullmatch(line.strip())
        if not match or match["caller"] in _RESERVED_NAMES:
            raise SettingError(
                f"FASHION_API_KEYS: line {number} of {path} must be a key of 32 to 128 hexadecimal digits, a caller's "
                "name and a semicolon; openssl rand -hex 32 makes a key"
            )
        if match["key"].lower() in keys:
            raise SettingError(f"FASHION_API_KEYS: line {number} of {path} repeats a key of an earlier line")
        keys.add(match["key"].lower())
    if not keys:
        raise SettingError(f"FASHION_API_KEYS: {path} contains no key")
    return f'default ""; "" nobody; include "{_checked_path(path)}";'
