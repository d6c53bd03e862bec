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

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.fleet import labs
from tests.fleet.fleet import NODES
from tests.support.composing import run

# Attempts to start a node that was killed.
STARTS = 5
OUTSIDE = ("ip", "netns", "exec", "swbr")
MANAGER = 1


class Lab(labs.Lab):
    """The nodes of a swarm."""

    def __init__(self) -> None:
        super().__init__("SWARM_LAB", "a swarm (tests/fleet/swarm/lab.py)")

    def docker(self, node: int, *arguments: str, check: bool = True, environment: dict[str, str] | None = None) -> str:
        """Run Docker's client on a node; returns its output."""
        return run(self.program, "n", str(node), *arguments, environment=environment, check=check)

    def start(self, node: int) -> None:
        # A killed engine leaves the process id of its containerd. If a thread of the new engine has the same id, it
        # takes that for a containerd that still runs, and ends.
        for _ in range(STARTS):
            run(self.program, "start", str(node), check=False)
            if "Server Version" in self.docker(node, "info", check=False):
                return
        pytest.fail(f"node {node} did not start in {STARTS} attempts")

    @contextmanager
    def cut_off(self, node: int) -> Iterator[None]:
        self.do("partition", str(node))
        try:
            yield
        finally:
            self.do("heal", str(node))

    def without_control(self) -> AbstractContextManager[None]:
        return self.lost(MANAGER)

    @staticmethod
    def address(node: int) -> str:
        return f"10.99.0.{node}"

    def up(self) -> None:
        self.do("up", str(NODES))
        # A node counts as lost after three heartbeats.
        self.docker(MANAGER, "swarm", "update", "--dispatcher-heartbeat", "2s")
