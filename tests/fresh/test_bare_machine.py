"""A bare machine, from a clone to answers: no nginx, no data set, no network but the package registries, an empty home.

Root hides those parts in a mount namespace of its own, and becomes an ordinary user there. Names resolve from a file
alone, which has the registries' addresses. ``FRESH`` names a folder in which the clone is left; without it a temporary
one is removed.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from pip._internal.models.index import PyPI

from models.fashion_mnist import SOURCES
from models.sources import Mirror
from serving import settings
from serving.settings import ROOT
from tests.support import free_ports, guard

USER = pwd.getpwnam("nobody") if sys.platform == "linux" else None
# Seconds: several times what a slow machine takes to install, train and start.
LIMIT = 1800
SCREEN = 24
# What pip and apt need to find their registries, where this machine names them by variables.
KEPT = re.compile(r"(PIP|UV)_\w+|(\w+_)?(CA_BUNDLE|CERT_FILE|CERT_DIR)|(https?|no)_proxy|(HTTPS?|NO)_PROXY")
# As root, in a mount namespace: nothing here is seen by others, and all of it ends with the last process. The files
# hosts and nsswitch.conf of the folder $1 take the place of the machine's; $2 and $3 are the user and the group.
HIDE = r"""
set -eu
mount --make-rprivate /
for folder in /usr/share/datasets /etc/nginx /var/run/nscd; do
    if [ -d "$folder" ]; then mount -t tmpfs tmpfs "$folder"; fi
done
for program in $(which -a nginx) /usr/sbin/nginx; do
    if [ -e "$program" ]; then mount --bind /dev/null "$program"; fi
done
for file in hosts nsswitch.conf; do mount --bind "$1/$file" "/etc/$file"; done
user=$2 group=$3
shift 3
exec setpriv --reuid "$user" --regid "$group" --clear-groups --no-new-privs "$@"
"""
NAMES_FROM_FILES = "passwd: files\ngroup: files\nhosts: files\n"


def _unavailable(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _registries() -> set[str]:
    """The hosts of pip's and apt's registries, and of the proxies on the way to them."""
    configured = [_output(sys.executable, "-m", "pip", "config", "list")]
    if not re.search(r"(?<!extra-)index-url", configured[0]):
        configured += [PyPI.simple_url, f"https://{PyPI.file_storage_domain}"]
    if shutil.which("apt-get"):
        configured += [_output("apt-get", "indextargets", "--format", "$(SITE)"), _output("apt-config", "dump")]
    configured += [value for name, value in os.environ.items() if name.lower().endswith("_proxy")]
    urls = re.findall(r"https?://[^\s'\";,]+", "\n".join(configured))
    return {host for host in (urlsplit(url).hostname for url in urls) if host}


def _hosts() -> str:
    """The file ``hosts`` of the bare machine: this machine's own names, and the registries' as they resolve now."""
    lines = ["127.0.0.1 localhost", f"127.0.0.1 {socket.gethostname()}"]
    for host in sorted(_registries()):
        with contextlib.suppress(socket.gaierror):
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            lines += [f"{address[4][0]} {host}" for address in found]
    return "\n".join([*lines, ""])


class Machine:
    """The bare machine.

    Attributes:
        clone: the repository's folder there.
        address: of the gateway.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.clone = folder / "fashion-serve"
        home = folder / "home"
        home.mkdir()
        (folder / "hosts").write_text(_hosts())
        (folder / "nsswitch.conf").write_text(NAMES_FROM_FILES)
        base = settings.read({})
        numbers = free_ports.find(len(base.ports))
        self._environment = {
            **{name: value for name, value in os.environ.items() if KEPT.fullmatch(name)},
            **{port.variable: str(number) for port, number in zip(base.ports, numbers, strict=True)},
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "TMPDIR": str(home),
            "LANG": "C.UTF-8",
            # By which the guard ends what a killed run leaves.
            guard.MARK: os.environ[guard.MARK],
        }
        self.address = f"http://127.0.0.1:{self._environment['FASHION_GATEWAY_PORT']}"
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, self.clone], check=True)
        for path in (home, self.clone):
            subprocess.run(["chown", "-R", f"{USER.pw_uid}:{USER.pw_gid}", path], check=True)

    def _command(self, *command: str) -> list[str]:
        hide = ["unshare", "--mount", "bash", "-c", HIDE, "hide", str(self._folder)]
        return [*hide, str(USER.pw_uid), str(USER.pw_gid), *command]

    def resolves(self, host: str) -> bool:
        """Whether a name has an address there."""
        return subprocess.run(self._command("getent", "ahosts", host), stdout=subprocess.DEVNULL).returncode == 0

    def make(self, *arguments: str) -> list[str]:
        """Run ``make`` as a person there would, which must succeed; the lines that it prints."""
        command = self._command("make", "-C", str(self.clone), "--no-print-directory", *arguments)
        begun = time.monotonic()
        with subprocess.Popen(
            command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                printed, _ = process.communicate(timeout=LIMIT)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        # What CI's log is to show.
        print(f"make {' '.join(arguments)}: {time.monotonic() - begun:.1f} s\n{printed}")
        assert process.returncode == 0, printed
        return printed.splitlines()

    def processes(self) -> list[psutil.Process]:
        """The user's processes in this machine's folder, not those of another machine beside it."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.uids().real != USER.pw_uid or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                # nginx and the workers rewrite their command lines, and some commands name relative paths.
                if any(f"{self._folder}/" in f"{word}/" for word in (process.cwd(), *process.cmdline())):
                    found.append(process)
        return found


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    if sys.platform != "linux" or os.geteuid() != 0:
        _unavailable("only root on Linux can hide parts of a machine")
    missing = [name for name in ("unshare", "setpriv", "git", "make") if shutil.which(name) is None]
    if missing:
        _unavailable(f"missing: {', '.join(missing)}; Debian: apt-get install util-linux git make")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        _unavailable("this container's root may not make a mount namespace; run it with CAP_SYS_ADMIN")
    chosen = os.environ.get("FRESH")
    folder = Path(chosen).absolute() if chosen else Path(tempfile.mkdtemp(prefix="bare-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        pytest.fail(f"{folder} is not empty; name an empty folder with FRESH=")
    folder.chmod(0o755)
    made = Machine(folder)
    try:
        yield made
    finally:
        for process in made.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if not chosen:
            shutil.rmtree(folder, ignore_errors=True)


def test_only_the_registries_have_names(machine):
    assert machine.resolves(PyPI.netloc) or PyPI.netloc not in _registries()
    mirrors = [urlsplit(source.url).hostname for source in SOURCES if isinstance(source, Mirror)]
    assert mirrors
    assert [host for host in (*mirrors, "example.org") if machine.resolves(host)] == []


@pytest.mark.timeout(LIMIT + 60)
def test_make_serve_ends_with_a_service_and_prints_no_more_than_a_screen(machine):
    lines = machine.make("serve")
    assert len(lines) <= SCREEN, "\n".join(lines)
    assert lines[0].startswith("First run: installs packages")
    assert any("package dataset-fashion-mnist" in line for line in lines)
    assert any(line.startswith("Ready after") for line in lines)
    assert lines[-1].startswith("Try: curl")
    status = (machine.clone / "run" / "gateway" / "status.conf").read_text()
    assert "built without stub_status" in status


def test_the_gateway_answers_a_prediction(machine):
    with (ROOT / "examples" / "ankle_boot.png").open("rb") as image:
        answer = requests.post(
            f"{machine.address}/predictions/fashion_convnet",
            data=image,
            headers={"Content-Type": "image/png"},
            timeout=30,
        )
    assert (answer.status_code, answer.json()["label"]) == (200, "Ankle boot")


@pytest.mark.parametrize("path", ["/", "/docs/", "/docs/openapi.yaml", "/readyz"])
def test_the_pages_are_there(machine, path):
    assert requests.get(machine.address + path, timeout=30).status_code == 200


def test_stop_leaves_nothing(machine):
    assert machine.processes()
    assert machine.make("stop") == ["stopped"]
    assert machine.processes() == []


def test_the_second_run_does_nothing_again(machine):
    lines = machine.make("serve")
    assert not any("First run" in line or "nstalling" in line or "trained" in line for line in lines)
    assert any(line.startswith("Ready after") for line in lines)
    assert machine.make("stop") == ["stopped"]
