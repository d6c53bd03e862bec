"""Proxy process for a forked worker: same lifetime, same exit code.

TorchServe starts and kills this process as if it were the worker. The fork server kills the worker when this process
has ended. The script ``python`` beside this file runs it, with the arguments of a worker. It imports little, so that it
starts fast.
"""

import json
import os
import select
import socket
import sys

# For the fork server to fork; it may still be importing torch.
_FORK_TIMEOUT_S = 30.0
# For the fork server to send the exit code of a worker that has ended.
_EXIT_CODE_TIMEOUT_S = 1.0


def _request_worker(server: socket.socket) -> int | None:
    """Request a worker from the fork server; returns its pid, or ``None`` without a fork server."""
    request = {"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
    server.settimeout(_FORK_TIMEOUT_S)
    try:
        server.connect(os.environ["FASHION_FORK_SERVER"])
        socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
        return int(server.recv(64))
    except (OSError, KeyError, ValueError):
        return None


def _wait_for_end(server: socket.socket, pid: int) -> int:
    """Wait until the worker ends; returns its exit code, negative for a signal."""
    try:
        worker = os.pidfd_open(pid)
    except ProcessLookupError:
        pass
    else:
        # Wait for the worker and not for the server's message, because the fork server may end first.
        select.select([worker], [], [])
    server.settimeout(_EXIT_CODE_TIMEOUT_S)
    try:
        return int(server.recv(64))
    except (OSError, ValueError):
        return 1


def main() -> None:
    """Request a worker and exit with its code, or become a worker."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        if pid := _request_worker(server):
            code = _wait_for_end(server, pid)
            # 128 + the signal's number, as shells and Java report it.
            sys.exit(code if code >= 0 else 128 - code)
    python = os.environ["FASHION_PYTHON"]
    os.execv(python, [python, *sys.argv[1:]])


if __name__ == "__main__":
    main()
