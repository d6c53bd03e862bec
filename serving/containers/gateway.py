"""The gateway in a container: write nginx's configuration, and become nginx.

    python -m serving.containers.gateway

A child process stays behind that tells nginx of changes in the folder that it shares with TorchServe's container, where
rollouts write (``serving/gateway_live.py``).
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from serving import gateway, gateway_live, nginx, settings
from serving.errors import ServingError

# Seconds between two looks.
_LOOK = 0.05


def watch(path: Path, seen: bytes, master: int) -> None:
    """Send SIGHUP to nginx whenever a file has changed, until nginx has ended.

    Args:
        path: the file.
        seen: what it held before nginx can have read it.
        master: the number of its master process, which this process is a child of.
    """
    while os.getppid() == master:
        time.sleep(_LOOK)
        now = path.read_bytes()
        if now != seen:
            os.kill(master, signal.SIGHUP)
            seen = now


def main() -> int:
    """Become nginx; returns an exit code only where that fails."""
    try:
        given = settings.read()
        program = nginx.find(given.nginx)
        # Nothing there outlives the container: nginx does not take the place of a socket that a killed one has left.
        config = gateway.write_config(given, program, Path(tempfile.gettempdir()))
    except ServingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    this = os.getpid()
    live = gateway.live_folder(given) / gateway_live.NAME
    seen = live.read_bytes()
    # It would end an nginx that does not handle it yet. Blocked it waits until nginx does: sigsuspend lets it in.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    if os.fork() == 0:
        # It must not take part in nginx's ways to end: it ends when nginx has.
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        watch(live, seen, this)
        os._exit(0)
    os.execv(program.path, gateway.command(program, config))
    raise AssertionError("nginx has taken this process's place")


if __name__ == "__main__":
    sys.exit(main())
