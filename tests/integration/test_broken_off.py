"""An interrupted run of tests leaves no process behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from serving.polling import wait_until
from serving.settings import ROOT

# A test that starts a detached process and an nginx, as a service does, and another nginx, whose master it kills. Then
# it writes a file, and hangs.
TEST = """
import os, subprocess, sys, time
from pathlib import Path
import psutil
from serving import settings
from tests.support import gateways

def test_it(tmp_path):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    with gateways.running(settings.read({}), tmp_path / "killed"), gateways.running(settings.read({}), tmp_path):
        masters = [process for process in psutil.Process().children() if process.name() == "nginx"]
        min(masters, key=psutil.Process.create_time).kill()
        Path(os.environ["STARTED"]).write_text("")
        time.sleep(600)
"""


def _running(started: Path) -> list[psutil.Process]:
    """Processes of the run: those of nginx work in its folder, and the others have its variable."""
    processes = []
    for process in psutil.process_iter():
        try:
            has_variable = process.environ().get("STARTED") == str(started)
            has_folder = any(f"{started.parent}/run/" in word for word in (f"{process.cwd()}/", *process.cmdline()))
            if (has_variable or has_folder) and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
        except psutil.Error:
            continue
    return processes


def _start(folder: Path, *options: str) -> tuple[subprocess.Popen[str], Path]:
    """Start a run of that test, and wait until the test has started its processes."""
    started = folder / "started"
    (folder / "test_it.py").write_text(TEST)
    run = subprocess.Popen(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml")),
            *("--rootdir", str(ROOT), "--basetemp", str(folder / "run"), "-p", "no:cacheprovider", *options),
            str(folder / "test_it.py"),
        ],
        cwd=ROOT,
        env={**{name: value for name, value in os.environ.items() if "XDIST" not in name}, "STARTED": str(started)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert wait_until(lambda: started.exists() or run.poll() is not None, 60)
    assert run.poll() is None, run.communicate()[0]
    names = [process.name() for process in _running(started)]
    # Of one nginx the master and its workers, of the other only the workers.
    assert names.count("nginx") >= 3, names
    assert len(names) > names.count("nginx") + 1, names
    return run, started


@pytest.mark.parametrize(
    ("number", "options"),
    [
        pytest.param(signal.SIGINT, (), id="Ctrl-C"),
        pytest.param(signal.SIGTERM, ("--numprocesses", "1"), id="SIGTERM, in parallel"),
        pytest.param(signal.SIGKILL, (), id="SIGKILL"),
    ],
)
def test_a_signal_leaves_no_process(tmp_path, number, options):
    run, started = _start(tmp_path, *options)
    run.send_signal(number)
    run.communicate(timeout=60)
    assert run.returncode != 0
    assert wait_until(lambda: not _running(started), 30), _running(started)


def test_a_test_that_times_out_leaves_no_process(tmp_path):
    run, started = _start(tmp_path, "--timeout", "5")
    output, _ = run.communicate(timeout=60)
    assert (run.returncode, "Timeout" in output) == (1, True), output
    assert wait_until(lambda: not _running(started), 30), _running(started)
