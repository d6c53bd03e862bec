"""The fork server: imports torch and the other modules of a worker once, and forks a worker for each launcher.

    python serving/torchserve/forking/server.py SOCKET

    listen ─► import torch and the rest ─► launcher's request ─► fork ─► child runs the worker's script
                                                │                 └─ child ends ─► launcher gets its exit code
                                                └─ launcher ends ─► kill its child

It computes nothing and starts no threads, so that a child starts in the same state as after its own imports. On SIGTERM
the fork server ends its workers. If it is killed, they keep running.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import runpy
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

# The imports of workers and of the archives' handlers.
_IMPORTS = ("ts.model_service_worker", "numpy", "orjson", "PIL.Image", "torch")

# The supervisor's liveness request; __init__.py has the same message.
_PING = b"ping"

# A request holds a worker's arguments and environment, which take some kilobytes.
_MAX_REQUEST_BYTES = 1 << 20


class _Server:
    """Handles the messages and ends of launchers and children, one at a time."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        # Of each launcher: its child's pid, and the pidfd that becomes readable when the child ends.
        self._children: dict[socket.socket, tuple[int, int]] = {}

    def serve(self) -> NoReturn:
        """Serve until SIGTERM. Each child runs its worker inside this call and leaves it with ``SystemExit``."""
        while True:
            # One event at a time, because handling it may close the socket of the next one.
            key, _ = self._selector.select()[0]
            # A SIGTERM between a fork and the child's entry in _children would leave the child running.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            key.data()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def end_children(self) -> None:
        """Kill every child and send the exit codes to the launchers."""
        for launcher, (pid, _) in list(self._children.items()):
            os.kill(pid, signal.SIGKILL)
            self._on_child_end(launcher)

    def _accept(self) -> None:
        launcher, _ = self._listener.accept()
        self._selector.register(launcher, selectors.EVENT_READ, partial(self._on_launcher, launcher))

    def _on_launcher(self, launcher: socket.socket) -> None:
        """Handle a launcher's request, a ping, or the launcher's end (an empty message)."""
        try:
            message, files, _, _ = socket.recv_fds(launcher, _MAX_REQUEST_BYTES, 3)
        except OSError:
            message, files = b"", []
        if child := self._children.get(launcher):
            # The child may have ended already. Its pid stays reserved until _on_child_end reaps it.
            os.kill(child[0], signal.SIGKILL)
            self._selector.unregister(launcher)
        elif message == _PING:
            with suppress(OSError):
                launcher.send(message)
        elif not message or _has_ended(launcher):
            self._forget(launcher)
        else:
            self._fork(launcher, partial(_become, **json.loads(message), files=files))
        for file in files:
            os.close(file)

    def _fork(self, launcher: socket.socket, become: Callable[[], NoReturn]) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            # Without a pid, the launcher becomes a plain Python.
            print(f"fork failed: {error}", file=sys.stderr, flush=True)
            self._forget(launcher)
            return
        if pid == 0:
            self._close_all()
            become()
        pidfd = os.pidfd_open(pid)
        self._children[launcher] = pid, pidfd
        self._selector.register(pidfd, selectors.EVENT_READ, partial(self._on_child_end, launcher))
        with suppress(OSError):
            launcher.send(str(pid).encode())

    def _close_all(self) -> None:
        """In a child: close the server's sockets and descriptors."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            else:
                os.close(key.fd)
        self._selector.close()

    def _on_child_end(self, launcher: socket.socket) -> None:
        pid, pidfd = self._children.pop(launcher)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        with suppress(OSError):
            launcher.send(str(os.waitstatus_to_exitcode(status)).encode())
        self._forget(launcher)

    def _forget(self, launcher: socket.socket) -> None:
        with suppress(KeyError):
            self._selector.unregister(launcher)
        launcher.close()


def _has_ended(launcher: socket.socket) -> bool:
    """Whether the launcher has ended since its request."""
    try:
        return not launcher.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _paths(environment: dict[str, str]) -> list[str]:
    return [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]


def _become(arguments: list[str], folder: str, environment: dict[str, str], files: list[int]) -> NoReturn:
    """Run a worker's script in this process, in the same state as a newly started Python.

    Args:
        arguments: the script and its arguments.
        folder: the working directory.
        environment: all variables.
        files: descriptors of standard input, output and error.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    sys.path[:0] = [str(Path(arguments[0]).parent), *_paths(environment)]
    # Otherwise all workers would inherit the same seeds, and draw the same numbers.
    random.seed()
    sys.modules["numpy"].random.seed()
    with suppress(OSError):
        # The name in ps and top, which would be this program's.
        Path("/proc/self/comm").write_text("worker")
    runpy.run_path(arguments[0], run_name="__main__")
    sys.exit()


def main() -> None:
    """Listen on the socket of the first argument."""
    # Remove this script's folder, which Python puts first, and PYTHONPATH, which each worker sets itself.
    sys.path[:] = [path for path in sys.path[1:] if path not in _paths(dict(os.environ))]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    address = Path(sys.argv[1])
    # A killed fork server leaves its socket behind.
    address.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(address))
    # Before the imports, so that early launchers connect and wait for them.
    listener.listen(64)
    for name in _IMPORTS:
        importlib.import_module(name)
    # Exclude the imported objects from garbage collection: a collection in a child would copy their memory pages.
    gc.collect()
    gc.freeze()
    server = _Server(listener)
    parent = os.getpid()
    try:
        server.serve()
    finally:
        if os.getpid() == parent:
            server.end_children()


if __name__ == "__main__":
    main()
