"""The fork server and the launcher that stands for a worker: as if the worker had been started by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from serving import settings
from serving.polling import wait_until
from serving.torchserve import forking
from serving.torchserve.jvm import WORKER_PYTHON

TIMEOUT = 60

pytestmark = pytest.mark.skipif(not forking.available(settings.read({})), reason="needs Linux 5.3 or later")

# Prints what a worker finds, and then what it is told to do.
SCRIPT = """
import gc, json, os, random, sys
import numpy
found = {
    "arguments": sys.argv, "folder": os.getcwd(), "path": sys.path, "name": __name__, "collects": gc.get_threshold(),
    "variables": dict(os.environ), "file": __file__, "standard input": os.path.realpath("/proc/self/fd/0"),
    "descriptors": sorted(os.listdir("/proc/self/fd"))[:4],
}
sys.modules["__main__"].marked = True
print(json.dumps({"found": found, "drawn": [random.random(), numpy.random.rand()], "torch": "torch" in sys.modules}))
print("worker said this", file=sys.stderr, flush=True)
sys.stdout.flush()
exec(sys.argv[1])
"""


def prepare(folder: Path) -> Path:
    (folder / "scripts").mkdir()
    (folder / "scripts" / "worker.py").write_text(SCRIPT)
    return folder


def begin(folder: Path) -> subprocess.Popen[bytes]:
    """Begin a fork server, which takes a while to import torch."""
    variables = {**os.environ, "PYTHONPATH": str(WORKER_PYTHON)}
    server = subprocess.Popen([sys.executable, forking.SERVER, forking.address(folder)], env=variables)
    assert wait_until(lambda: forking.listens(folder), TIMEOUT)
    return server


def end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("forking"))


@pytest.fixture(scope="module")
def server(folder):
    """A fork server for all tests that leave it as it was."""
    server = begin(folder)
    yield server
    end(server)


@pytest.fixture
def own_folder(tmp_path):
    """For a test that ends its server, or has none."""
    return prepare(tmp_path)


def launch(folder: Path, does: str = "", program: Path = forking.LAUNCHER) -> subprocess.Popen[str]:
    """A worker that prints what it finds and then does something."""
    return subprocess.Popen(
        [program, folder / "scripts" / "worker.py", does, "--sock-name", "x"],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{WORKER_PYTHON}{os.pathsep}{folder}",
            "ODD": "b\udcfft",
            forking.ADDRESS: str(forking.address(folder)),
            forking.PYTHON: sys.executable,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(worker: subprocess.Popen[str]) -> tuple[int, dict, str]:
    said, complained = worker.communicate(timeout=TIMEOUT)
    return worker.returncode, json.loads(said), complained


def running(worker: subprocess.Popen[str], server: subprocess.Popen[bytes]) -> psutil.Process:
    """The process that was forked for it, once it has printed what it found."""
    worker.stdout.readline()
    (child,) = psutil.Process(server.pid).children()
    return child


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.usefixtures("server")
def test_forked_worker_finds_what_a_started_one_does(folder):
    code, forked, complained = ended(launch(folder))
    assert (code, complained, forked["torch"]) == (0, "worker said this\n", True)
    code, plain, _ = ended(launch(folder, program=Path(sys.executable)))
    assert (code, plain["torch"]) == (0, False)
    # The launcher's shell sets it.
    forked["found"]["variables"].pop("PWD", None)
    assert forked["found"] == plain["found"]


def test_without_a_server_it_is_started(own_folder):
    code, found, complained = ended(launch(own_folder, "sys.exit(7)"))
    assert (code, found["torch"], complained) == (7, False, "worker said this\n")


@pytest.mark.usefixtures("server")
def test_workers_draw_other_random_numbers(folder):
    first, second = (ended(launch(folder))[1]["drawn"] for _ in range(2))
    assert first[0] != second[0]
    assert first[1] != second[1]


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("does", "code"),
    [("sys.exit(3)", 3), ("raise ValueError", 1), ("os.kill(os.getpid(), 9)", 137), ("os._exit(5)", 5)],
)
def test_launcher_ends_as_its_worker(folder, does, code):
    assert ended(launch(folder, does))[0] == code


@pytest.mark.parametrize("hangs", [False, True])
def test_worker_is_killed_with_its_launcher(server, folder, hangs):
    launcher = launch(folder, "import time; time.sleep(600)")
    worker = running(launcher, server)
    if hangs:
        worker.suspend()
    launcher.kill()
    launcher.communicate()
    assert wait_until(lambda: gone(worker), TIMEOUT)
    # And the server goes on.
    assert ended(launch(folder))[1]["torch"]


def test_worker_outlives_a_server_that_is_killed(own_folder):
    server = begin(own_folder)
    launcher = launch(own_folder, "import time; time.sleep(600)")
    worker = running(launcher, server)
    server.kill()
    server.wait()
    after = begin(own_folder)
    assert ended(launch(own_folder))[1]["torch"]
    assert not gone(worker)
    assert launcher.poll() is None
    worker.kill()
    assert launcher.wait(TIMEOUT) != 0
    launcher.communicate()
    end(after)


def test_server_that_is_told_to_end_ends_its_workers(own_folder):
    server = begin(own_folder)
    launcher = launch(own_folder, "import time; time.sleep(600)")
    worker = running(launcher, server)
    worker.suspend()
    server.send_signal(signal.SIGTERM)
    assert server.wait(TIMEOUT) == 0
    assert wait_until(lambda: gone(worker), TIMEOUT)
    assert launcher.wait(TIMEOUT) == 137
    launcher.communicate()


def test_launcher_that_gave_up_gets_no_worker(server, folder):
    assert ended(launch(folder))[0] == 0
    os.kill(server.pid, signal.SIGSTOP)
    launcher = launch(folder, "import time; time.sleep(600)")
    # Its socket is connected before it waits for the server, which does not run.
    assert wait_until(lambda: psutil.Process(launcher.pid).net_connections("unix"), TIMEOUT)
    launcher.kill()
    launcher.wait()
    os.kill(server.pid, signal.SIGCONT)
    launcher.communicate()
    assert ended(launch(folder))[0] == 0
    assert psutil.Process(server.pid).children() == []


@pytest.mark.usefixtures("server")
def test_many_workers_at_once(folder):
    launchers = [launch(folder, f"sys.exit({number})") for number in range(8)]
    assert [ended(launcher)[0] for launcher in launchers] == list(range(8))


def test_it_answers_a_ping_and_one_that_is_stopped_does_not(server, folder):
    assert forking.answers(folder, TIMEOUT)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        # Connections are taken by the system.
        assert forking.listens(folder)
        assert not forking.answers(folder, 0.3)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert forking.answers(folder, TIMEOUT)


def test_one_switch_rules_it_out():
    assert not forking.available(settings.read({"FASHION_FORK": "0"}))
