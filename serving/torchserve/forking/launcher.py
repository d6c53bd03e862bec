"""Stands for one worker in the frontend's eyes: lives as long as it and ends as it did.

Run by ``python`` beside this file, with the arguments of a worker. The fork server kills the worker when this process
is gone, as TorchServe kills what it has started and knows nothing of the worker. Imports little, to be up at once.
"""

import json
import os
import select
import socket
import sys

# Seconds for the fork server, which may still be importing torch, to fork.
_PATIENCE = 30.0
# Seconds for it to say how a worker ended that has ended.
_SAYS = 1.0


def _ask(server: socket.socket) -> int | None:
    """Ask for a worker; its pid, or ``None`` where nobody forks one."""
    wanted = {"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
    server.settimeout(_PATIENCE)
    try:
        server.connect(os.environ["FASHION_FORK_SERVER"])
        socket.send_fds(server, [json.dumps(wanted).encode()], [0, 1, 2])
        return int(server.recv(64))
    except (OSError, KeyError, ValueError):
        return None


def _await(server: socket.socket, pid: int) -> int:
    """Wait until the worker ends; its exit code, negative for a signal."""
    try:
        worker = os.pidfd_open(pid)
    except ProcessLookupError:
        pass
    else:
        # The fork server may end before the worker does.
        select.select([worker], [], [])
    server.settimeout(_SAYS)
    try:
        return int(server.recv(64))
    except (OSError, ValueError):
        return 1


def main() -> None:
    """Have a worker forked and end as it does, or become one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        if pid := _ask(server):
            code = _await(server, pid)
            # As a shell says it, and Java.
            sys.exit(code if code >= 0 else 128 - code)
    python = os.environ["FASHION_PYTHON"]
    os.execv(python, [python, *sys.argv[1:]])


if __name__ == "__main__":
    main()
