"""A bare machine, from a clone to answers: no nginx, no data set, no network but the package registries, an empty home.

Root hides those parts in a mount namespace of its own, and becomes an ordinary user there. ``FRESH`` names a folder in
which the clone is left; without it a temporary one is removed.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from serving import settings
from serving.settings import ROOT
from tests import ports

USER = pwd.getpwnam("nobody") if sys.platform == "linux" else None
# Seconds: several times what a slow machine takes to install, train and start.
LIMIT = 1800
SCREEN = 24
# What pip and apt need to find their registries, where this machine names them by variables.
KEPT = re.compile(r"(PIP|UV)_\w+|(\w+_)?(CA_BUNDLE|CERT_FILE|CERT_DIR)|(https?|no)_proxy|(HTTPS?|NO)_PROXY")
# As root, in a mount namespace: nothing here is seen by others, and all of it ends with the last process.
HIDE = r"""
set -eu
mount --make-rprivate /
for folder in /usr/share/datasets /etc/nginx; do
    if [ -d "$folder" ]; then mount -t tmpfs tmpfs "$folder"; fi
done
for program in $(which -a nginx) /usr/sbin/nginx; do
    if [ -e "$program" ]; then mount --bind /dev/null "$program"; fi
done
# The names of other sources of the data set lead nowhere.
cp /etc/hosts "$1/hosts"
for host in fashion-mnist.s3-website.eu-central-1.amazonaws.com raw.githubusercontent.com storage.googleapis.com; do
    echo "0.0.0.0 $host" >>"$1/hosts"
done
mount --bind "$1/hosts" /etc/hosts
shift
exec setpriv --reuid nobody --regid nogroup --clear-groups --no-new-privs "$@"
"""


def _unavailable(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


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
        base = settings.read({})
        numbers = ports.free(len(base.ports))
        self._environment = {
            **{name: value for name, value in os.environ.items() if KEPT.fullmatch(name)},
            **{port.variable: str(number) for port, number in zip(base.ports, numbers, strict=True)},
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "TMPDIR": str(home),
            "LANG": "C.UTF-8",
        }
        self.address = f"http://127.0.0.1:{self._environment['FASHION_GATEWAY_PORT']}"
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, self.clone], check=True)
        for path in (home, self.clone):
            subprocess.run(["chown", "-R", f"{USER.pw_uid}:{USER.pw_gid}", path], check=True)

    def make(self, *arguments: str) -> list[str]:
        """Run ``make`` as a person there would, which must succeed; the lines that it prints."""
        command = ["unshare", "--mount", "bash", "-c", HIDE, "hide", str(self._folder)]
        command += ["make", "-C", str(self.clone), "--no-print-directory", *arguments]
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
        """What runs in the clone."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and any(
                    str(self.clone) in each for each in process.cmdline()
                ):
                    found.append(process)
        return found


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    if sys.platform != "linux" or os.geteuid() != 0:
        _unavailable("only root on Linux can hide parts of a machine")
    missing = [name for name in ("unshare", "setpriv", "git", "make") if shutil.which(name) is None]
    if missing:
        _unavailable(f"missing: {', '.join(missing)}; Debian: apt-get install util-linux git make")
    chosen = os.environ.get("FRESH")
    folder = Path(chosen).absolute() if chosen else Path(tempfile.mkdtemp(prefix="bare-"))
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


@pytest.mark.timeout(LIMIT + 60)
def test_make_serve_ends_with_a_service_and_prints_no_more_than_a_screen(machine):
    lines = machine.make("serve")
    assert len(lines) <= SCREEN, "\n".join(lines)
    assert lines[0].startswith("First run: installs packages")
    assert any("package dataset-fashion-mnist" in line for line in lines)
    assert any(line.startswith("Ready after") for line in lines)
    assert lines[-1].startswith("Try: curl")
    log = (machine.clone / "run" / "gateway" / "nginx.conf").read_text()
    assert "built without stub_status" in log


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
