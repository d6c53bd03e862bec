"""The gateway's configuration, rendered from ``serving/gateway/nginx/*.template`` into ``run/gateway``.

``nginx_binary.py`` finds the nginx that runs with it. Its logs are in the service's logs folder.
"""

from __future__ import annotations

import grp
import logging
import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path

from handlers import limits
from serving import cpu_quota, files
from serving.errors import SettingError
from serving.gateway import reload
from serving.gateway.nginx_binary import Nginx
from serving.settings import ROOT, Port, Settings, bracketed

logger = logging.getLogger("serving.gateway")

PAGES = ROOT / "web"
TEMPLATES = Path(__file__).with_name("nginx")

# Each worker allocates its 10,000 connections at the start.
_MOST_WORKERS = 8
_SOCKET = "gateway.sock"
_VARIABLE = re.compile(r"\$\{([A-Z_]+)\}")
# In a quoted string of nginx's, these would end it or begin a variable.
_UNQUOTABLE = re.compile(r"[\"$\\\n]")
_KEY = re.compile(r"(?P<key>[0-9a-fA-F]{32,128})\s+(?P<caller>[A-Za-z][A-Za-z0-9._-]{0,63});")
_RESERVED = ("anybody", "nobody", "default", "hostnames", "include", "volatile")


def write_config(settings: Settings, nginx: Nginx, scratch: Path) -> Path:
    """Write nginx's configuration for these settings: the folder ``run/gateway``, one file for each template.

    Args:
        settings: addresses, folders, and what the gateway is to ask of clients.
        nginx: the program that is to read it.
        scratch: folder for its Unix socket; a short path.

    Returns:
        The main file, which includes the others.

    Raises:
        SettingError: the key file or the certificates cannot be used, or a path holds a character that nginx's
            configuration cannot.
    """
    folder = settings.run / "gateway"
    folder.mkdir(parents=True, exist_ok=True)
    live = reload.live_file(settings)
    if not live.exists():
        # TorchServe's start writes what holds.
        reload.write(live, reload.render({}, {}))
    # nginx does not take the place of a socket that a killed one has left.
    (scratch / _SOCKET).unlink(missing_ok=True)
    values = variables(settings, nginx, folder, scratch)
    for template in TEMPLATES.glob("*.template"):
        files.write_atomically(folder / template.stem, render(template.read_text(), values))
    return folder / "main.conf"


def render(template: str, values: Mapping[str, str]) -> str:
    """Put values in the place of ``${NAME}``, as ``envsubst`` does, but for a name without value, which is an error.

    Raises:
        KeyError: a name has no value.
    """
    return _VARIABLE.sub(lambda found: values[found[1]], template)


def variables(settings: Settings, nginx: Nginx, folder: Path, scratch: Path) -> dict[str, str]:
    """The values of the templates' names.

    Args:
        settings, nginx: as for ``write_config``.
        folder: for nginx's own files.
        scratch: for its Unix socket.

    Raises:
        SettingError: as for ``write_config``.
    """
    tls = " ssl" if settings.certificates else ""
    http2 = "; http2 on" if nginx.has_http2_directive else " http2"
    return {
        "USER": _user(),
        "WORKERS": str(min(_MOST_WORKERS, cpu_quota.usable_cpus())),
        "LISTEN": _listening(settings, settings.gateway) + tls,
        "TLS": _tls(settings.certificates) if settings.certificates else "",
        "STATUS": "stub_status;" if nginx.has_stub_status else 'return 200 "built without stub_status\n";',
        "STATUS_LISTEN": _listening(settings, settings.gateway_status),
        "GRPC_LISTEN": _listening(settings, settings.grpc) + tls + http2,
        "GRPC_BRIDGE": settings.grpc_bridge.address,
        "INFERENCE": settings.inference.address,
        "FRONTDOOR": settings.frontdoor.address,
        "METRICS": settings.metrics.address,
        "RUN": _quotable(folder),
        "LIVE": _quotable(reload.live_file(settings)),
        "SOCKET": _quotable(scratch / _SOCKET),
        "PAGES": _quotable(PAGES),
        "SWAGGER_UI": _quotable(files.package("swagger_ui", "swagger-ui-py") / "static"),
        "ANSWERS": _quotable(answers(settings)),
        "ACCESS_LOG": _quotable(settings.log("access.log")),
        "BODY_BYTES": str(limits.REQUEST_BYTES),
        "CALLERS": _callers(settings.api_keys) if settings.api_keys else "default anybody;",
        "LIMITED": "on" if settings.rate_limit else "off",
        # The largest burst, too. Any rate will do where it is not used.
        "RATE": str(settings.rate_limit or 1),
    }


def answers(settings: Settings) -> Path:
    """Where nginx writes a line for each answer, for ``serving/sidecars/metrics/gateway.py``."""
    return settings.run / "gateway" / "answers.log"


def command(nginx: Nginx, config: Path) -> list[str]:
    """Nginx's command line; it stays in the foreground and logs errors to stderr.

    Args:
        nginx: the program.
        config: what ``write_config`` wrote.
    """
    return [str(nginx.path), "-p", str(config.parent), "-c", str(config), "-e", "stderr", "-g", "daemon off;"]


def _listening(settings: Settings, port: Port) -> str:
    """The address of nginx's ``listen``; the IPv6 wildcard takes IPv4 too."""
    return f"{bracketed(settings.listen)}:{port.number}" + " ipv6only=off" * (settings.listen == "::")


def _quotable(path: Path) -> str:
    if _UNQUOTABLE.search(str(path)):
        raise SettingError(f'{path}: nginx cannot use a path with a quotation mark, "$", a backslash or a line break')
    return str(path)


def _user() -> str:
    """Without it, a master that runs as root would start workers as a user who may not be able to read the pages."""
    if os.geteuid() != 0:
        return ""
    logger.warning("the service runs as root, and so do nginx's workers, which parse what callers send")
    return f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getegid()).gr_name};"


def _tls(folder: Path) -> str:
    certificate, key = folder / "gateway.crt", folder / "gateway.key"
    for path in (certificate, key):
        if not path.is_file():
            raise SettingError(f"FASHION_CERTIFICATES: there is no {path}; make a certificate with: make certs")
    return f'ssl_certificate "{_quotable(certificate)}"; ssl_certificate_key "{_quotable(key)}";'


def _callers(path: Path) -> str:
    """The entries of the template's map of keys; the file holds lines of it, so that nginx reads it as it is."""
    try:
        lines = path.read_text().splitlines()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"FASHION_API_KEYS: {path} cannot be read: {error}") from None
    # Kubernetes mounts a secret for its group (fsGroup), with mode 440.
    if mode & 0o027:
        raise SettingError(f"FASHION_API_KEYS: others can read or change {path}; run: chmod 600 {path}")
    if mode & 0o040:
        logger.warning("FASHION_API_KEYS: the group of %s can read it", path)
    keys = set()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _KEY.fullmatch(line.strip())
        if not found or found["caller"] in _RESERVED:
            raise SettingError(
                f"FASHION_API_KEYS: line {number} of {path} is not a key of 32 or more hexadecimal digits, a name and "
                "a semicolon; openssl rand -hex 32 makes a key"
            )
        if found["key"].lower() in keys:
            raise SettingError(f"FASHION_API_KEYS: line {number} of {path} has a key that is there already")
        keys.add(found["key"].lower())
    if not keys:
        raise SettingError(f"FASHION_API_KEYS: {path} has no key")
    return f'default ""; "" nobody; include "{_quotable(path)}";'
