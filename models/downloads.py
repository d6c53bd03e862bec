"""Sources of a dataset's files: an HTTP server, or a package of Debian's or Ubuntu's archive.

An unreachable source fails within seconds, so that the next one is tried soon.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import requests
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from models.errors import DataError

# Takes a file's name and its packed contents, and raises DataError unless these are the published ones.
Check = Callable[[str, bytes], object]

# Limit for resolving a name and connecting, however many addresses it has.
_CONNECT_TIMEOUT_S = 5.0
# Limit between two pieces of a response.
_READ_TIMEOUT_S = 10.0
# A transfer whose average is slower than this, after a grace period, is abandoned.
_SLOWEST_BYTES_PER_S = 20_000
_GRACE_S = 15.0
# Delay before the only retry of an interrupted transfer.
_RETRY_DELAY_S = 1.0
# Limits for apt to update the archive's lists, and to download a package of 31 MB.
_LISTS_TIMEOUT_S = 120.0
_PACKAGE_TIMEOUT_S = 600.0


def display(disable: bool) -> Progress:
    """A progress display for a source's ``fetch``; ``disable`` it without a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), disable=disable, transient=True)


class Source(Protocol):
    """Where files can be fetched from."""

    @property
    def name(self) -> str:
        """The source, as messages name it."""

    def fetch(self, names: Iterable[str], folder: Path, check: Check, progress: Progress, /) -> None:
        """Fetch files into a folder. A file appears there only when it has passed the check.

        Args:
            names: the files' names, without ``.gz``.
            folder: an existing folder.
            check: validates each file's contents.
            progress: shows the transfers.

        Raises:
            DataError: the source is unreachable or does not have the right files.
        """


@dataclasses.dataclass(frozen=True)
class Mirror:
    """An HTTP server with the packed files in one folder.

    Attributes:
        url: the folder's URL, without a slash at the end.
    """

    url: str

    @property
    def name(self) -> str:
        """The server's host name."""
        return urlsplit(self.url).hostname or self.url

    def fetch(self, names: Iterable[str], folder: Path, check: Check, progress: Progress) -> None:
        """See ``Source``."""
        if not requests.utils.get_environ_proxies(self.url):
            _reach(self.url)
        with requests.Session() as session:
            for name in names:
                task = progress.add_task(name, total=None)
                try:
                    packed = self._get(session, f"{self.url}/{name}.gz", progress, task)
                except requests.Timeout:
                    raise DataError(f"no answer within {_READ_TIMEOUT_S:g} s") from None
                except requests.RequestException as error:
                    raise DataError(str(error)) from error
                check(f"{name}.gz", packed)
                _place(packed, folder / f"{name}.gz")

    def _get(self, session: requests.Session, url: str, progress: Progress, task: TaskID) -> bytes:
        """One file's contents; an interrupted transfer is retried once."""
        try:
            return self._transfer(session, url, progress, task)
        except requests.Timeout:
            raise
        except requests.RequestException:
            time.sleep(_RETRY_DELAY_S)
            return self._transfer(session, url, progress, task)

    def _transfer(self, session: requests.Session, url: str, progress: Progress, task: TaskID) -> bytes:
        begin, packed = time.monotonic(), bytearray()
        with session.get(url, stream=True, timeout=(_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S)) as response:
            response.raise_for_status()
            length = response.headers.get("Content-Length")
            progress.reset(task, total=int(length) if length else None)
            for chunk in response.iter_content(1 << 16):
                packed += chunk
                progress.update(task, advance=len(chunk))
                counted_s = time.monotonic() - begin - _GRACE_S
                if len(packed) < counted_s * _SLOWEST_BYTES_PER_S:
                    raise requests.Timeout
        if length and len(packed) != int(length):
            raise requests.ConnectionError(f"{url} broke off after {len(packed)} of {length} bytes")
        return bytes(packed)


def _reach(url: str) -> None:
    """Connect to a server, or fail within ``_CONNECT_TIMEOUT_S``.

    Name resolution has no timeout of its own, and a name may have many dead addresses.

    Raises:
        DataError: the server is unreachable, or did not accept the connection in time.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or {"https": 443}.get(parts.scheme, 80)
    failure = f"within {_CONNECT_TIMEOUT_S:g} s"

    def connect() -> None:
        nonlocal failure
        try:
            socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_S).close()
            failure = ""
        except OSError as error:
            failure = f"({error})"

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_CONNECT_TIMEOUT_S)
    if failure:
        raise DataError(f"no connection to {host} {failure}")


@dataclasses.dataclass(frozen=True)
class Package:
    """A package of the archive that this machine's apt is set up for, fetched without root and not installed.

    Attributes:
        package: the package's name.
        folder: where an installed package has the files.
        options: further options of apt-get.
    """

    package: str
    folder: Path
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The package and its origin."""
        return f"the package {self.package} of apt's archive"

    def fetch(self, names: Iterable[str], folder: Path, check: Check, progress: Progress) -> None:
        """See ``Source``."""
        for program in ("apt-get", "dpkg-deb"):
            if shutil.which(program) is None:
                raise DataError(f"{program} is not installed")
        with tempfile.TemporaryDirectory() as temporary:
            scratch = Path(temporary)
            progress.add_task("apt-get update", total=None)
            self._apt(scratch, _LISTS_TIMEOUT_S, "update")
            progress.add_task(f"apt-get download {self.package}", total=None)
            self._apt(scratch, _PACKAGE_TIMEOUT_S, "download", self.package)
            archives = list(scratch.glob("*.deb"))
            if not archives:
                raise DataError(f"apt-get left no package file of {self.package}")
            _run(["dpkg-deb", "-x", str(archives[0]), str(scratch / "unpacked")], scratch, _LISTS_TIMEOUT_S)
            unpacked = scratch / "unpacked" / self.folder.relative_to("/")
            for name in names:
                path = unpacked / f"{name}.gz"
                if not path.is_file():
                    raise DataError(f"{archives[0].name} has no {name}.gz")
                packed = path.read_bytes()
                check(f"{name}.gz", packed)
                _place(packed, folder / path.name)

    def _apt(self, scratch: Path, timeout: float, *command: str) -> None:
        """Run apt-get with its own lists and cache, which needs no root."""
        for part in ("lists/partial", "archives/partial"):
            (scratch / part).mkdir(parents=True, exist_ok=True)
        settings = {
            "Dir::State::Lists": scratch / "lists",
            "Dir::Cache": scratch,
            "Dir::Cache::Archives": scratch / "archives",
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            # Started by root, apt would switch to a user that may not write here.
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": 0,
            "Acquire::http::Timeout": int(_CONNECT_TIMEOUT_S),
            "Acquire::https::Timeout": int(_CONNECT_TIMEOUT_S),
        }
        options = [f"-o{name}={value}" for name, value in settings.items()]
        _run(["apt-get", "-qq", *options, *self.options, *command], scratch, timeout)


def _run(command: list[str], folder: Path, timeout: float) -> None:
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{command[0]} took longer than {timeout:g} s") from None
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.startswith("E:")] or result.stderr.splitlines()
        raise DataError(lines[-1] if lines else f"{command[0]} failed with status {result.returncode}")


def _place(content: bytes, path: Path) -> None:
    """Write a file atomically."""
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as temporary:
        part = Path(temporary) / path.name
        part.write_bytes(content)
        part.replace(path)
