"""Workers in a tenth of the time: forked from one process that has imported torch, in place of importing it each.

    frontend ──runs──► python (launcher.py) ──asks──► server.py ──forks──► worker
                                └─ nobody there ─► becomes a plain Python with the same arguments

TorchServe starts a worker by running the program that ``--python`` names, so nothing of it has to be changed. Zygote is
Android's and Chrome's name for the same; ``multiprocessing.forkserver`` forks only for a Python that started it.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from serving.settings import Settings

# What TorchServe runs in place of Python.
LAUNCHER = Path(__file__).with_name("python")
SERVER = Path(__file__).with_name("server.py")

# The variables that tell the launcher where the server listens, and which Python to become if it does not. launcher.py
# and python have their names once more, as they import nothing of this package.
ADDRESS = "FASHION_FORK_SERVER"
PYTHON = "FASHION_PYTHON"
# Asks the server for any answer; server.py has it once more.
_PING = b"ping"


def available(settings: Settings) -> bool:
    """Whether workers are forked: unless told not to, on Linux 5.3 or newer, where any process can be waited for."""
    if not settings.fork_server:
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return os.access(LAUNCHER, os.X_OK)


def address(scratch: Path) -> Path:
    """The socket of the service whose private folder for temporary files is ``scratch``."""
    return scratch / "fork-server"


def listens(scratch: Path) -> bool:
    """Whether the fork server of that service takes launchers, which then wait until it has imported everything."""
    return answers(scratch, None)


def answers(scratch: Path, timeout: float | None) -> bool:
    """Whether it answers within ``timeout`` seconds; with ``None``, whether it listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.settimeout(timeout)
        try:
            asking.connect(str(address(scratch)))
            return timeout is None or asking.send(_PING) == len(asking.recv(len(_PING)))
        except OSError:
            return False
