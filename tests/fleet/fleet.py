"""What the tests of every engine ask of a fleet."""

from __future__ import annotations

import abc
import dataclasses
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar

from tests.fleet import versions
from tests.fleet.labs import Lab
from tests.fleet.load import Callers

# The labs have no registry: images are loaded into every node, under names whose registry refuses a pull at once.
REGISTRY = "127.0.0.1:5000"
NODES = 3
# Longer than any rollout of three replicas on a busy machine.
PATIENCE_S = 240.0
# API keys exist for these callers.
CALLERS = ("alice", "bob")


def image(version: str) -> str:
    """The image of a version."""
    return f"{REGISTRY}/fashion-serve:{version}"


@dataclasses.dataclass(frozen=True)
class Replica:
    """One replica that should run.

    Attributes:
        id: the engine's.
        node: its number, 0 while the replica has no node.
        image: its image.
        ready: whether it runs, its health check passes, and its node is ready.
    """

    id: str
    node: int
    image: str
    ready: bool


class Fleet(abc.ABC):
    """Three replicas of a version on an engine, and perhaps a canary.

    Attributes:
        published: the ports that callers reach at every node.
        canary_percent: the share of requests that one canary gets beside three replicas.
        canary_calls: how many calls measure that share to 2 points.
        lost_with_network: the outcomes of calls that fail when a node is cut off from the network.
        lost_until_noticed: the outcomes of calls without retries that fail until the engine has noticed a lost node.
        lab: the nodes.
        keys: API keys by caller.
        start_s: seconds that the start of its three replicas took.
    """

    published: ClassVar[Sequence[int]]
    canary_percent: ClassVar[float]
    canary_calls: ClassVar[int]
    lost_with_network: ClassVar[Collection[str]] = ()
    lost_until_noticed: ClassVar[Collection[str]] = ()

    def __init__(self, lab: Lab, folder: Path, stores: dict[str, Path]) -> None:
        self.lab = lab
        self._folder = folder
        self._archives = versions.archives(stores)
        self.keys = {name: secrets.token_hex(32) for name in CALLERS}
        self.start_s = 0.0

    def _key_lines(self, *callers: str) -> str:
        return "".join(f"{self.keys[name]} {name};\n" for name in callers)

    @abc.abstractmethod
    def replicas(self) -> list[Replica]:
        """The replicas that should run, canaries excluded."""

    def ready(self) -> list[Replica]:
        """The replicas that are ready."""
        return [replica for replica in self.replicas() if replica.ready]

    @abc.abstractmethod
    def deploy(self, version: str) -> None:
        """Change the version; return when all replicas have it."""

    @abc.abstractmethod
    def back(self) -> None:
        """Return from 1.1 to 1.0 by the engine's own command."""

    @abc.abstractmethod
    def deploy_bad(self, version: str) -> None:
        """Change to a version that cannot become ready; return when the engine has noticed, and 1.0 is back."""

    @abc.abstractmethod
    def begin_canary(self, version: str) -> None:
        """Start one canary; return when it is ready."""

    @abc.abstractmethod
    def canary_counts(self) -> dict[str, int]:
        """Send requests; how many each version has answered."""

    @abc.abstractmethod
    def promote(self, version: str) -> None:
        """Make the canary's version that of all replicas, and end the canary."""

    @abc.abstractmethod
    def abort(self) -> None:
        """End the canary."""

    @abc.abstractmethod
    def scale(self, count: int) -> None:
        """Change the number of replicas; return when that many are ready and no others run."""

    @abc.abstractmethod
    def use_keys(self, *callers: str) -> None:
        """Make the keys of these callers the valid ones; return when all replicas have them."""

    @abc.abstractmethod
    def restore(self) -> None:
        """Return to all nodes, with three replicas of 1.0 and no canary. Lost nodes may have no replica."""

    @abc.abstractmethod
    def callers(self, caller: str = "alice", without: int | None = None) -> Callers:
        """Callers at the addresses of all nodes, or of all except one.

        Args:
            caller: whose key they have.
            without: the node whose address they do not use.
        """

    @abc.abstractmethod
    def inside(self, replica: Replica, *command: str, check: bool = True) -> str:
        """Run a command in a replica; returns its output."""

    @abc.abstractmethod
    def open_ports(self, ports: Sequence[int]) -> list[list[int]]:
        """Those of the ports that each replica opens to its neighbors."""
