"""Ports, processors and waiting."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

# Seconds between two looks at something that is waited for.
POLL = 0.05


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Whether a condition holds within ``timeout`` seconds, looked at every ``POLL`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs that this process may use: those of its scheduler affinity, or fewer if its container has a quota.

    Args:
        cgroup: where cgroups are mounted, of version 2 or 1.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        # Without a quota, version 2 has the word "max" in its place and version 1 the number -1.
        with suppress(OSError, ValueError):
            quota, period = (int(number) for name in names for number in (cgroup / name).read_text().split())
            if quota > 0:
                cpus = min(cpus, math.ceil(quota / period))
    return cpus


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen on this address now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
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
