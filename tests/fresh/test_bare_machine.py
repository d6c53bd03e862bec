"""From a clone to answers on a bare machine: no nginx, no data set, an empty home, and only the package registries.

Root hides the other parts of the machine in a mount namespace, and becomes an ordinary user there. Host names resolve
only from a file with the registries' addresses. ``FRESH`` names a folder in which the clone is kept; without it the
clone is in a temporary folder.
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

from models.downloads import Mirror
from models.fashion_mnist import SOURCES
from serving import settings
from serving.settings import ROOT
from tests.support import free_ports, guard

USER = pwd.getpwnam("nobody")
# Several times as long as a slow machine needs to install, train, and start.
TIMEOUT_S = 1800
SCREEN_LINES = 24
# The variables by which pip and apt find their registries on this machine.
KEPT_VARIABLES = re.compile(r"(PIP|UV)_\w+|(\w+_)?(CA_BUNDLE|CERT_FILE|CERT_DIR)|(https?|no)_proxy|(HTTPS?|NO)_PROXY")
# Runs as root in a mount namespace, which is invisible to other processes and ends with its last one. The files hosts
# and nsswitch.conf of the folder $1 replace those of the machine; $2 and $3 are the user and the group.
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
    """The hosts of the registries of pip and apt, and of their proxies."""
    configured = [_output(sys.executable, "-m", "pip", "config", "list")]
    if not re.search(r"(?<!extra-)index-url", configured[0]):
        configured += [PyPI.simple_url, f"https://{PyPI.file_storage_domain}"]
    if shutil.which("apt-get"):
        configured += [_output("apt-get", "indextargets", "--format", "$(SITE)"), _output("apt-config", "dump")]
    configured += [value for name, value in os.environ.items() if name.lower().endswith("_proxy")]
    urls = re.findall(r"https?://[^\s'\";,]+", "\n".join(configured))
    return {host for host in (urlsplit(url).hostname for url in urls) if host}


def _hosts() -> str:
    """The file ``hosts`` of the bare machine: this machine's own names, and the registries' current addresses."""
    lines = ["127.0.0.1 localhost", f"127.0.0.1 {socket.gethostname()}"]
    for host in sorted(_registries()):
        with contextlib.suppress(socket.gaierror):
            addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            lines += [f"{address[4][0]} {host}" for address in addresses]
    return "\n".join([*lines, ""])


class Machine:
    """The bare machine.

    Attributes:
        clone: the folder of the repository.
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
            **{name: value for name, value in os.environ.items() if KEPT_VARIABLES.fullmatch(name)},
            **{port.variable: str(number) for port, number in zip(base.ports, numbers, strict=True)},
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "TMPDIR": str(home),
            "LANG": "C.UTF-8",
            # The guard kills the leftovers of this run by its mark.
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
        """Whether a host name has an address on the bare machine."""
        return subprocess.run(self._command("getent", "ahosts", host), stdout=subprocess.DEVNULL).returncode == 0

    def make(self, *arguments: str) -> list[str]:
        """Run ``make`` on the bare machine, which must succeed; the printed lines."""
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
                printed, _ = process.communicate(timeout=TIMEOUT_S)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        # For the log of CI.
        print(f"make {' '.join(arguments)}: {time.monotonic() - begun:.1f} s\n{printed}")
        assert process.returncode == 0, printed
        return printed.splitlines()

    def processes(self) -> list[psutil.Process]:
        """The user's processes in this machine's folder, without those of another bare machine."""
        matches = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.uids().real != USER.pw_uid or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                # nginx and the workers overwrite their command lines, and some commands have relative paths.
                if any(f"{self._folder}/" in f"{word}/" for word in (process.cwd(), *process.cmdline())):
                    matches.append(process)
        return matches


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    if sys.platform != "linux" or os.geteuid() != 0:
        _unavailable("only root on Linux can hide parts of a machine")
    missing = [name for name in ("unshare", "setpriv", "git", "make") if shutil.which(name) is None]
    if missing:
        _unavailable(f"missing: {', '.join(missing)}; on Debian: apt-get install util-linux git make")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        _unavailable("root in this container cannot create a mount namespace; run the container with CAP_SYS_ADMIN")
    chosen = os.environ.get("FRESH")
    folder = Path(chosen).absolute() if chosen else Path(tempfile.mkdtemp(prefix="bare-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        pytest.fail(f"{folder} is not empty; name an empty folder with FRESH=")
    folder.chmod(0o755)
    bare = Machine(folder)
    try:
        yield bare
    finally:
        for process in bare.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if not chosen:
            shutil.rmtree(folder, ignore_errors=True)


def test_only_the_registries_resolve(machine):
    assert machine.resolves(PyPI.netloc) or PyPI.netloc not in _registries()
    mirrors = [urlsplit(source.url).hostname for source in SOURCES if isinstance(source, Mirror)]
    assert mirrors
    assert [host for host in (*mirrors, "example.org") if machine.resolves(host)] == []


@pytest.mark.timeout(TIMEOUT_S + 60)
def test_make_serve_starts_the_service_and_its_output_fits_on_a_screen(machine):
    lines = machine.make("serve")
    # Without a terminal, the progress of the training has lines too, more on a slower machine.
    progress = [line for line in lines if re.search(r" epoch \d+/\d+ ", line)]
    assert len(lines) - len(progress) <= SCREEN_LINES, "\n".join(lines)
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
def test_the_pages_are_served(machine, path):
    assert requests.get(machine.address + path, timeout=30).status_code == 200


def test_stop_leaves_nothing(machine):
    assert machine.processes()
    assert machine.make("stop") == ["stopped"]
    assert machine.processes() == []


def test_the_second_run_repeats_no_setup(machine):
    lines = machine.make("serve")
    assert not any(re.search("First run|installing|trained", line, re.IGNORECASE) for line in lines)
    assert any(line.startswith("Ready after") for line in lines)
    assert machine.make("stop") == ["stopped"]
