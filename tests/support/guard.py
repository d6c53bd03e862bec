"""Ends what a test run leaves running, however the run ends: services detach themselves, so nothing else would.

    pytest ──starts──► guard, a process of its own, waits until the pipe from pytest is closed
      └─ends, is killed, closes the pipe─► guard kills every process that has the run's mark, and ends

All processes of a run inherit its mark, an environment variable. nginx overwrites its variables; its command line names
a folder below the run's temporary one instead.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "FASHION_TEST_RUN"
# Seconds without any such process after which no more are expected: one that is killed may just have started another.
_QUIET_S = 0.5
# Seconds after which the guard gives up, so that it never becomes what it is to prevent.
_LIMIT_S = 60.0


def begin(folder: Path) -> subprocess.Popen[bytes]:
    """Start a guard for this process, and mark this process's children to come.

    Args:
        folder: below which the run's temporary files are.

    Returns:
        The guard; it acts when its standard input is closed, which the end of this process does too.
    """
    mark = f"{os.getpid()}-{time.time_ns()}"
    guard = subprocess.Popen(
        [sys.executable, __file__, mark, str(folder)],
        stdin=subprocess.PIPE,
        # A terminal's Ctrl-C reaches the whole foreground group.
        start_new_session=True,
    )
    os.environ[MARK] = mark
    return guard


def belonging(variable: str, value: str, below: str) -> list[psutil.Process]:
    """The living processes that have a variable with this value or name a path below a folder, and their children.

    Args:
        variable: an environment variable.
        value: what it must be.
        below: the folder that nginx's command line names, with a path after it.
    """
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(variable) == value or any(
                f"{below}{os.sep}" in word for word in process.cmdline()
            ):
                found += [process, *process.children(recursive=True)]
    return [process for process in dict.fromkeys(found) if process.pid != os.getpid()]


def _main(mark: str, folder: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    limit = time.monotonic() + _LIMIT_S
    quiet = time.monotonic() + _QUIET_S
    while time.monotonic() < min(quiet, limit):
        for process in belonging(MARK, mark, folder):
            quiet = time.monotonic() + _QUIET_S
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.05)


if __name__ == "__main__":
    # Its own command line names the folder, too.
    _main(sys.argv[1], sys.argv[2])
