"""The fork server and its launchers: a forked worker behaves like one that was started directly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from serving import settings
from serving.polling import wait_until
from serving.supervisor.service import ended
from serving.torchserve import forking
from serving.torchserve.jvm import WORKER_PYTHON

TIMEOUT = 60

pytestmark = pytest.mark.skipif(not forking.available(settings.read({})), reason="needs Linux 5.3 or later")

# A worker that prints the state of its process, and then runs the code of its first argument.
SCRIPT = """
import gc, json, os, random, sys
import numpy
state = {
    "arguments": sys.argv, "folder": os.getcwd(), "path": sys.path, "name": __name__, "collects": gc.get_threshold(),
    "variables": dict(os.environ), "file": __file__, "standard input": os.path.realpath("/proc/self/fd/0"),
    "descriptors": sorted(os.listdir("/proc/self/fd"))[:4],
}
sys.modules["__main__"].marked = True
print(json.dumps({"state": state, "random": [random.random(), numpy.random.rand()], "torch": "torch" in sys.modules}))
print("on standard error", file=sys.stderr, flush=True)
sys.stdout.flush()
exec(sys.argv[1])
"""


def prepare(folder: Path) -> Path:
    (folder / "scripts").mkdir()
    (folder / "scripts" / "worker.py").write_text(SCRIPT)
    return folder


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start a fork server; it listens before it has imported torch."""
    variables = {**os.environ, "PYTHONPATH": str(WORKER_PYTHON)}
    server = subprocess.Popen([sys.executable, forking.SERVER, forking.address(folder)], env=variables)
    assert wait_until(lambda: forking.listens(folder), TIMEOUT)
    return server


def stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("forking"))


@pytest.fixture(scope="module")
def server(folder):
    """A fork server for all tests that don't end it."""
    server = start(folder)
    yield server
    stop(server)


@pytest.fixture
def own_folder(tmp_path):
    """For a test that ends its own server, or has none."""
    return prepare(tmp_path)


def launch(folder: Path, code: str = "", program: Path = forking.LAUNCHER) -> subprocess.Popen[str]:
    """Start a worker that prints the state of its process and then runs ``code``."""
    return subprocess.Popen(
        [program, folder / "scripts" / "worker.py", code, "--sock-name", "x"],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{WORKER_PYTHON}{os.pathsep}{folder}",
            "ODD": "b\udcfft",
            forking.ADDRESS_VARIABLE: str(forking.address(folder)),
            forking.PYTHON_VARIABLE: sys.executable,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait(launcher: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    """Wait for the end: the exit code, the printed state, and standard error."""
    output, errors = launcher.communicate(timeout=TIMEOUT)
    return launcher.returncode, json.loads(output), errors


def forked(launcher: subprocess.Popen[str], server: subprocess.Popen[bytes]) -> psutil.Process:
    """The launcher's worker, after it has printed its state."""
    assert launcher.stdout is not None
    launcher.stdout.readline()
    (child,) = psutil.Process(server.pid).children()
    return child


@pytest.mark.usefixtures("server")
def test_a_forked_worker_starts_in_the_same_state_as_a_plain_one(folder):
    code, printed, errors = wait(launch(folder))
    assert (code, errors, printed["torch"]) == (0, "on standard error\n", True)
    code, plain, _ = wait(launch(folder, program=Path(sys.executable)))
    assert (code, plain["torch"]) == (0, False)
    # The launcher's shell sets PWD.
    printed["state"]["variables"].pop("PWD", None)
    assert printed["state"] == plain["state"]


def test_without_a_fork_server_the_launcher_becomes_a_plain_worker(own_folder):
    code, printed, errors = wait(launch(own_folder, "sys.exit(7)"))
    assert (code, printed["torch"], errors) == (7, False, "on standard error\n")


@pytest.mark.usefixtures("server")
def test_workers_draw_different_random_numbers(folder):
    first, second = (wait(launch(folder))[1]["random"] for _ in range(2))
    assert first[0] != second[0]
    assert first[1] != second[1]


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("sys.exit(3)", 3), ("raise ValueError", 1), ("os.kill(os.getpid(), 9)", 137), ("os._exit(5)", 5)],
)
def test_the_launcher_exits_with_its_workers_code(folder, code, exit_code):
    assert wait(launch(folder, code))[0] == exit_code


@pytest.mark.parametrize("hangs", [False, True])
def test_the_worker_is_killed_with_its_launcher(server, folder, hangs):
    launcher = launch(folder, "import time; time.sleep(600)")
    worker = forked(launcher, server)
    if hangs:
        worker.suspend()
    launcher.kill()
    launcher.communicate()
    assert wait_until(lambda: ended(worker), TIMEOUT)
    # The server still works.
    assert wait(launch(folder))[1]["torch"]


def test_a_worker_outlives_a_killed_fork_server(own_folder):
    server = start(own_folder)
    launcher = launch(own_folder, "import time; time.sleep(600)")
    worker = forked(launcher, server)
    server.kill()
    server.wait()
    successor = start(own_folder)
    assert wait(launch(own_folder))[1]["torch"]
    assert not ended(worker)
    assert launcher.poll() is None
    worker.kill()
    assert launcher.wait(TIMEOUT) != 0
    launcher.communicate()
    stop(successor)


def test_sigterm_ends_the_fork_server_and_its_workers(own_folder):
    server = start(own_folder)
    launcher = launch(own_folder, "import time; time.sleep(600)")
    worker = forked(launcher, server)
    worker.suspend()
    server.send_signal(signal.SIGTERM)
    assert server.wait(TIMEOUT) == 0
    assert wait_until(lambda: ended(worker), TIMEOUT)
    assert launcher.wait(TIMEOUT) == 137
    launcher.communicate()


def test_a_killed_launcher_gets_no_worker(server, folder):
    assert wait(launch(folder))[0] == 0
    os.kill(server.pid, signal.SIGSTOP)
    launcher = launch(folder, "import time; time.sleep(600)")
    # The launcher has connected to the stopped server as soon as it has a socket.
    assert wait_until(lambda: psutil.Process(launcher.pid).net_connections("unix"), TIMEOUT)
    launcher.kill()
    launcher.wait()
    os.kill(server.pid, signal.SIGCONT)
    launcher.communicate()
    assert wait(launch(folder))[0] == 0
    assert psutil.Process(server.pid).children() == []


@pytest.mark.usefixtures("server")
def test_several_workers_at_once(folder):
    launchers = [launch(folder, f"sys.exit({number})") for number in range(8)]
    assert [wait(launcher)[0] for launcher in launchers] == list(range(8))


def test_a_running_fork_server_answers_a_ping_and_a_stopped_one_does_not(server, folder):
    assert forking.answers(folder, TIMEOUT)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        # The kernel accepts connections for a stopped process.
        assert forking.listens(folder)
        assert not forking.answers(folder, 0.3)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert forking.answers(folder, TIMEOUT)


def test_fashion_fork_0_turns_forking_off():
    assert not forking.available(settings.read({"FASHION_FORK": "0"}))
