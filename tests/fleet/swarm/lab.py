"""A swarm of several Docker engines on this machine, each a node in a network namespace of its own.

``SWARM_LAB`` names the program that makes it::

    up N             start the engines and the swarm, node 1 as manager
    n K COMMAND…     run Docker's client with the engine of node K
    load IMAGE…      copy images from the machine's engine to every node
    crash K          kill node K with all its processes
    start K          start it again
    partition K      cut node K off from the network; heal K undoes it
    down             end everything that the program has started

Node K has the address 10.99.0.K, which the namespace ``swbr`` reaches.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.composing import run

NODES = 3
# Attempts to start a node that was killed.
STARTS = 5
# Images of a gigabyte are written to, or removed from, three engines.
LAB_TIMEOUT_S = 600.0
OUTSIDE = ("ip", "netns", "exec", "swbr")


def program() -> Path:
    """The lab's program; without a prerequisite the tests fail, and say which."""
    name = os.environ.get("SWARM_LAB", "")
    missing = {
        "Linux": platform.system() == "Linux",
        "root": os.geteuid() == 0,
        "the program ip (on Debian: sudo apt-get install iproute2)": shutil.which("ip"),
        "SWARM_LAB, the path of a program that makes a swarm (tests/fleet/swarm/lab.py)": os.access(name, os.X_OK),
    }
    if lacking := [what for what, there in missing.items() if not there]:
        pytest.fail(f"the tests of a fleet need {', and '.join(lacking)}")
    return Path(name).resolve()


class Lab:
    """The nodes of a swarm, numbered from 1."""

    def __init__(self) -> None:
        self._program = str(program())

    def do(self, *arguments: str) -> str:
        """Run a command of the lab."""
        return run(self._program, *arguments, timeout=LAB_TIMEOUT_S)

    def docker(self, node: int, *arguments: str, check: bool = True, environment: dict[str, str] | None = None) -> str:
        """Run Docker's client on a node; returns its output."""
        return run(self._program, "n", str(node), *arguments, environment=environment, check=check)

    @contextmanager
    def lost(self, node: int) -> Iterator[None]:
        """Kill a node; at the end of the context start it."""
        self.do("crash", str(node))
        try:
            yield
        finally:
            self._start(node)

    def _start(self, node: int) -> None:
        # A killed engine leaves the process id of its containerd. If a thread of the new engine has the same id, it
        # takes that for a containerd that still runs, and ends.
        for _ in range(STARTS):
            run(self._program, "start", str(node), check=False)
            if "Server Version" in self.docker(node, "info", check=False):
                return
        pytest.fail(f"node {node} did not start in {STARTS} attempts")

    @contextmanager
    def cut_off(self, node: int) -> Iterator[None]:
        """Cut a node off from the network during the context."""
        self.do("partition", str(node))
        try:
            yield
        finally:
            self.do("heal", str(node))

    @staticmethod
    def address(node: int) -> str:
        """The address of a node."""
        return f"10.99.0.{node}"

    def up(self) -> None:
        """Start the swarm."""
        self.do("up", str(NODES))
        # A node counts as lost after three heartbeats.
        self.docker(1, "swarm", "update", "--dispatcher-heartbeat", "2s")
