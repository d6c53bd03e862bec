"""A run of tests that is broken off leaves no process behind, however it ends."""

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

# A test that leaves what a service leaves, a detached process and an nginx, says so, and goes on for ever.
TEST = """
import os, subprocess, sys, time
from pathlib import Path
from serving import settings
from tests.support import gateways

def test_it(tmp_path):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    with gateways.running(settings.read({}), tmp_path):
        Path(os.environ["STARTED"]).write_text("")
        time.sleep(600)
"""


def _left(started: Path) -> list[psutil.Process]:
    """What the run has started: nginx names its folder, and others have its variable."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("STARTED") == str(started)
            named = any(f"{started.parent}/run/" in word for word in process.cmdline())
            if (mine or named) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _begin(folder: Path, *options: str) -> tuple[subprocess.Popen[str], Path]:
    """Begin a run of that test; returns when it has started its processes."""
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
    assert len(_left(started)) > 3
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
    run, started = _begin(tmp_path, *options)
    run.send_signal(number)
    run.communicate(timeout=60)
    assert run.returncode != 0
    assert wait_until(lambda: not _left(started), 30), _left(started)


def test_a_test_that_takes_too_long_leaves_no_process(tmp_path):
    run, started = _begin(tmp_path, "--timeout", "5")
    printed, _ = run.communicate(timeout=60)
    assert (run.returncode, "Timeout" in printed) == (1, True), printed
    assert wait_until(lambda: not _left(started), 30), _left(started)
