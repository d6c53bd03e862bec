"""Processes and ports: started detached, recognised again later, stopped with everything they started."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

# Seconds between two looks at something that is waited for.
POLL = 0.05

# A process's start time is worked out from the clock, which may be set right by a little between two looks.
_CLOCK_STEP = 2.0

# Seconds within which killed processes are gone, unless the system holds them back.
_KILL_TIME = 10.0


@dataclasses.dataclass(frozen=True)
class ProcessId:
    """One process, told apart from a later one with the same number.

    Attributes:
        name: what it is to the service.
        pid: its number; it leads a process group of the same number.
        created: when it started, seconds since 1970.
        stop_signal: what asks it to end.
    """

    name: str
    pid: int
    created: float
    stop_signal: int = signal.SIGTERM

    @property
    def alive(self) -> bool:
        """It runs: neither gone, nor a zombie, nor another process by now."""
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        try:
            return self.holds_number and bool(psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    @property
    def holds_number(self) -> bool:
        """Its number is still its own: it runs, or has ended and nobody has asked how."""
        try:
            return bool(abs(psutil.Process(self.pid).create_time() - self.created) < _CLOCK_STEP)
        except psutil.NoSuchProcess:
            return False


def spawn(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    output: Path,
    append: bool = False,
    stop_signal: int = signal.SIGTERM,
) -> ProcessId:
    """Start a process in a session of its own, so that neither Ctrl-C nor a closed terminal reaches it.

    Args:
        name: what it is to the service.
        command: program and arguments.
        environment: all its variables.
        folder: its working directory.
        output: file that takes its standard output and error.
        append: keep what was in that file.
        stop_signal: what asks it to end.
    """
    with output.open("ab" if append else "wb") as log:
        child = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        created = psutil.Process(child.pid).create_time()
    except psutil.NoSuchProcess:
        created = time.time()
    return ProcessId(name, child.pid, created, stop_signal)


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Whether a condition holds within ``timeout`` seconds, looked at every ``POLL`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def _group(leader: ProcessId) -> list[psutil.Process]:
    """The living processes of the group that ``leader`` leads or led, itself included."""
    restarted = psutil.boot_time() > leader.created + _CLOCK_STEP
    if restarted or (psutil.pid_exists(leader.pid) and not leader.holds_number):
        # The number went to a stranger, which it cannot while one of the group lives.
        return []
    members = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getpgid(process.pid) == leader.pid and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


def stop(process: ProcessId, grace: float) -> bool:
    """End a process and everything in its group, politely first.

    Args:
        process: leader of its group, as ``spawn`` starts it; it may be gone while others of the group live.
        grace: seconds it gets to end by itself after the signal that asks it to.

    Returns:
        Whether there was anything left to end.
    """
    found = process.alive
    if found:
        with suppress(ProcessLookupError):
            os.kill(process.pid, process.stop_signal)
        # What is suspended takes the signal when it goes on. macOS permits no signal to a group that has just ended.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGCONT)
        wait_until(lambda: not process.alive, grace)
    members = _group(process)
    # Again and again: what is killed may have started another process just before.
    wait_until(lambda: not _kill(_group(process)), _KILL_TIME)
    return found or bool(members)


def _kill(members: Sequence[psutil.Process]) -> bool:
    """Kill processes; whether there were any."""
    for member in members:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    return bool(members)


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen on this address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: without it, connections that have just ended keep the port for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def listens(host: str, port: int) -> bool:
    """Whether a server takes connections on this address now."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def listener(port: int) -> str:
    """Who listens on a TCP port, in words: name and pid, as far as this user may see them."""
    for process in psutil.process_iter(["name"]):
        # Other people's processes do not show their connections.
        with suppress(psutil.Error):
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return f"{process.info['name']} (pid {process.pid})"
    return "a process of another user"
