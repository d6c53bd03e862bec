"""Imports what every worker imports, once, and forks a worker whenever a launcher asks for one.

    python serving/torchserve/forking/server.py SOCKET

    listen ─► import torch and the rest ─► a launcher asks ─► fork ─► the child runs what the launcher was to run
                                              │                 └─ it ends ─► the launcher is told how
                                              └─ the launcher is gone ─► its child is killed

It computes nothing and starts no thread, so that a child finds everything as after imports of its own. A worker whose
fork server ends goes on; a fork server that is told to end (SIGTERM) ends its workers.
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

# What workers and the archives' handlers import at their start.
_IMPORTS = ("ts.model_service_worker", "numpy", "orjson", "PIL.Image", "torch")

# What the supervisor sends to see that this answers.
_PING = b"ping"

# Beyond what any arguments and variables take.
_LARGEST = 1 << 20


class _Server:
    """Hears launchers and children, one after another."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        # By launcher: its child's pid and a descriptor that tells when it ends.
        self._children: dict[socket.socket, tuple[int, int]] = {}

    def serve(self) -> NoReturn:
        """Serve until SIGTERM; each child runs its worker in here and leaves with ``SystemExit``."""
        while True:
            # One at a time, as what is done for one may close another.
            key, _ = self._selector.select()[0]
            # SIGTERM between a fork and its entry would leave the child running.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            key.data()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def end_children(self) -> None:
        """Kill every child, and tell its launcher."""
        for launcher, (pid, _) in list(self._children.items()):
            os.kill(pid, signal.SIGKILL)
            self._ended(launcher)

    def _accept(self) -> None:
        launcher, _ = self._listener.accept()
        self._selector.register(launcher, selectors.EVENT_READ, partial(self._heard, launcher))

    def _heard(self, launcher: socket.socket) -> None:
        try:
            message, files, _, _ = socket.recv_fds(launcher, _LARGEST, 3)
        except OSError:
            message, files = b"", []
        if child := self._children.get(launcher):
            # Its end is heard next. It may have come already: its number stays its own until then.
            os.kill(child[0], signal.SIGKILL)
            self._selector.unregister(launcher)
        elif message == _PING:
            with suppress(OSError):
                launcher.send(message)
        elif not message or _gone(launcher):
            self._forget(launcher)
        else:
            self._fork(launcher, partial(_become, **json.loads(message), files=files))
        for file in files:
            os.close(file)

    def _fork(self, launcher: socket.socket, become: Callable[[], NoReturn]) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            # The launcher becomes a plain Python, which may have more luck.
            print(f"no worker forked: {error}", file=sys.stderr, flush=True)
            self._forget(launcher)
            return
        if pid == 0:
            self._let_go()
            become()
        ended = os.pidfd_open(pid)
        self._children[launcher] = pid, ended
        self._selector.register(ended, selectors.EVENT_READ, partial(self._ended, launcher))
        with suppress(OSError):
            launcher.send(str(pid).encode())

    def _let_go(self) -> None:
        """In a child: close what is the server's."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            else:
                os.close(key.fd)
        self._selector.close()

    def _ended(self, launcher: socket.socket) -> None:
        pid, ended = self._children.pop(launcher)
        self._selector.unregister(ended)
        os.close(ended)
        _, status = os.waitpid(pid, 0)
        with suppress(OSError):
            launcher.send(str(os.waitstatus_to_exitcode(status)).encode())
        self._forget(launcher)

    def _forget(self, launcher: socket.socket) -> None:
        with suppress(KeyError):
            self._selector.unregister(launcher)
        launcher.close()


def _gone(launcher: socket.socket) -> bool:
    """Whether it has given up meanwhile."""
    try:
        return not launcher.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _paths(environment: dict[str, str]) -> list[str]:
    return [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]


def _become(arguments: list[str], folder: str, environment: dict[str, str], files: list[int]) -> NoReturn:
    """Run a worker's script in this process, as a Python that has just been started would.

    Args:
        arguments: the script and what it is given.
        folder: its working directory.
        environment: all its variables.
        files: descriptors of its standard input, output and error.
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
    # What was seeded at the import would give the same numbers in all workers.
    random.seed()
    sys.modules["numpy"].random.seed()
    with suppress(OSError):
        # For ps and top, which would show this program's name.
        Path("/proc/self/comm").write_text("worker")
    runpy.run_path(arguments[0], run_name="__main__")
    sys.exit()


def main() -> None:
    """Listen at the socket that the argument names."""
    # Python puts the folder of this script first, and PYTHONPATH is each worker's own.
    sys.path[:] = [path for path in sys.path[1:] if path not in _paths(dict(os.environ))]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    address = Path(sys.argv[1])
    # Of a fork server that was killed.
    address.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(address))
    # At once: launchers that ask now wait until everything is imported.
    listener.listen(64)
    for name in _IMPORTS:
        importlib.import_module(name)
    # What is here now stays for ever; to look through it in a child would copy its memory.
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
