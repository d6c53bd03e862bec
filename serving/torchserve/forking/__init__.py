"""Start workers in a tenth of the time: fork them from one process that has already imported torch.

    frontend ──runs──► python (launcher.py) ──request──► server.py ──forks──► worker
                                └─ no fork server ─► becomes a plain Python with the same arguments

TorchServe starts a worker by running the program that its option ``--python`` names, so TorchServe itself needs no
change. Android and Chrome call such a process a zygote; ``multiprocessing.forkserver`` only serves the Python process
that started it.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from serving.settings import Settings

# TorchServe runs this instead of Python.
LAUNCHER = Path(__file__).with_name("python")
SERVER = Path(__file__).with_name("server.py")

# The launcher's variables: the fork server's socket, and the Python to become without a fork server. launcher.py and
# python repeat these names, because they import nothing of this package.
ADDRESS_VARIABLE = "FASHION_FORK_SERVER"
PYTHON_VARIABLE = "FASHION_PYTHON"
# The server echoes this message; server.py repeats it.
_PING = b"ping"


def available(settings: Settings) -> bool:
    """Whether workers are forked: by default, on Linux 5.3 or newer, which can wait for any process (pidfd)."""
    if not settings.fork_server:
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return os.access(LAUNCHER, os.X_OK)


def address(scratch: Path) -> Path:
    """The fork server's socket, in the service's private folder for temporary files."""
    return scratch / "fork-server"


def listens(scratch: Path) -> bool:
    """Whether the fork server accepts launchers; they wait until its imports are done."""
    return answers(scratch, None)


def answers(scratch: Path, timeout: float | None) -> bool:
    """Whether the fork server answers a ping within ``timeout`` seconds; with ``None``, whether it listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(address(scratch)))
            return timeout is None or connection.send(_PING) == len(connection.recv(len(_PING)))
        except OSError:
            return False
