"""Kill the processes that a test run leaves behind. Services detach themselves, so nothing else would end them.

    pytest ──starts──► guard, a separate process, waits until the pipe from pytest is closed
      └─ends or is killed, which closes the pipe─► guard kills all processes with the run's mark, and ends

All processes of a run inherit its mark, an environment variable. nginx overwrites its environment, so the guard finds
it by its command line or its working directory, which is below the run's temporary folder. A worker of nginx that
survives its master has only the directory.
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
# A killed process may just have started another one, so the guard waits until none has appeared for this long.
_QUIET_S = 0.5
# The guard gives up after this long, so that it never becomes a leftover process itself.
_LIMIT_S = 60.0


def begin(folder: Path) -> subprocess.Popen[bytes]:
    """Start a guard for this process, and mark this process's future children.

    Args:
        folder: of the run's temporary files.

    Returns:
        The guard. It acts when its standard input is closed, at the latest by the end of this process.
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
    """Running processes with an environment variable, or with a path below a folder, and their descendants.

    Args:
        variable: the environment variable.
        value: its value.
        below: the folder. The command line names a path below it; or the process has overwritten its environment, and
            works in the folder.
    """
    matches: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            environment, words = process.environ(), process.cmdline()
            if not environment:
                words.append(process.cwd() + os.sep)
            if environment.get(variable) == value or any(f"{below}{os.sep}" in word for word in words):
                matches += [process, *process.children(recursive=True)]
    return [process for process in dict.fromkeys(matches) if process.pid != os.getpid()]


def kill(variable: str, value: str, below: str) -> bool:
    """Kill the processes that ``belonging`` finds, and reap those that are this process's own children.

    A process may start another one after its children were listed, and end before the other is. So call it until two
    calls in a row have found none.

    Returns:
        Whether it has found any.
    """
    processes = belonging(variable, value, below)
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    for process in processes:
        # They would stay as zombies.
        with suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
    return bool(processes)


def _main(mark: str, folder: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    limit = time.monotonic() + _LIMIT_S
    quiet = time.monotonic() + _QUIET_S
    while time.monotonic() < min(quiet, limit):
        if kill(MARK, mark, folder):
            quiet = time.monotonic() + _QUIET_S
        time.sleep(0.05)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
