"""A fleet on the lab's swarm: its stack, its tasks, and its callers."""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from serving.settings import ROOT
from tests.fleet import versions
from tests.fleet.load import Callers
from tests.fleet.swarm.lab import NODES, OUTSIDE, Lab
from tests.support.composing import run, wait_until

# The lab has no registry: images are loaded into every node, under names whose registry refuses a pull at once.
REGISTRY = "127.0.0.1:5000"
EDGE = f"{REGISTRY}/fashion-serve-edge:test"
FILES = (ROOT / "deploy/swarm/stack.yml", ROOT / "tests/fleet/swarm/lab.yml")
# Longer than any rollout of three replicas on a busy machine.
PATIENCE_S = 240.0


def image(version: str) -> str:
    """The image of a version."""
    return f"{REGISTRY}/fashion-serve:{version}"


@dataclasses.dataclass(frozen=True)
class Task:
    """One task of a service.

    Attributes:
        id: Docker's.
        node: its number, 0 while the task has no node.
        image: its image.
        ready: whether it runs, and its health check passes.
    """

    id: str
    node: int
    image: str
    ready: bool


def _number(node: str) -> int:
    return int(node.removeprefix("node") or 0)


class Fleet:
    """A stack whose state is the variables of ``deploy/swarm/fleet.env.example``.

    Attributes:
        lab: its nodes.
        keys: API keys by caller.
        state: the variables.
        base: their first values.
        start_s: seconds that the start of its three replicas took.
    """

    def __init__(self, lab: Lab, folder: Path, stores: dict[str, Path]) -> None:
        self.lab = lab
        self._folder = folder
        self._archives = versions.archives(stores)
        self.keys = {name: secrets.token_hex(32) for name in ("alice", "bob")}
        self.state = {
            "FASHION_IMAGE": image("1.0"),
            "FASHION_REPLICAS": "3",
            "FASHION_EDGE_IMAGE": EDGE,
            "FASHION_CANARY_IMAGE": image("1.0"),
            "FASHION_CANARY_REPLICAS": "0",
            # All callers have one address.
            "FASHION_RATE_LIMIT": "100000",
            "FASHION_KEYS_SECRET": "keys-alice",
            "FASHION_CERTIFICATE_SECRET": "certificate-1",
        }
        self.base = dict(self.state)
        self.start_s = 0.0

    def create(self) -> None:
        """Make the secrets, and deploy the stack."""
        certificate = self._folder / "keys"
        addresses = [self.lab.address(node) for node in range(1, NODES + 1)]
        run("serving/gateway/certs.sh", str(certificate), *addresses)
        pair = [(certificate / name).read_text() for name in ("gateway.crt", "gateway.key")]
        self._secret("certificate-1", "".join(pair))
        for names in (["alice"], ["alice", "bob"], ["bob"]):
            self._secret("keys-" + "-".join(names), "".join(f"{self.keys[name]} {name};\n" for name in names))
        started = time.monotonic()
        self.apply()
        self.start_s = time.monotonic() - started
        assert {task.node for task in self.ready()} == set(range(1, NODES + 1)), "each node has a replica"

    def _secret(self, name: str, content: str) -> None:
        path = self._folder / name
        path.write_text(content)
        self.lab.docker(1, "secret", "create", name, str(path))

    def apply(self, *files: Path, **changes: str) -> None:
        """Deploy the stack with further files and these changes; wait until replicas and canaries have converged."""
        self.begin(*files, **changes)
        for service in ("replica", "canary"):
            wait_until(partial(self.converged, service), PATIENCE_S, f"{service} has converged")

    def begin(self, *files: Path, **changes: str) -> None:
        """Deploy the stack with further files and these changes, without waiting."""
        self.state.update(changes)
        options = [option for path in (*FILES, *files) for option in ("--compose-file", str(path))]
        command = ("stack", "deploy", "--detach=true", "--resolve-image", "never", *options, "fashion")
        self.lab.docker(1, *command, environment=self.state)

    def update_state(self, service: str = "replica") -> str:
        """The state of a service's update: completed, updating, rollback_completed, …, or empty without one."""
        form = "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}"
        return self.lab.docker(1, "service", "inspect", f"fashion_{service}", "--format", form).strip()

    def tasks(self, service: str = "replica") -> list[Task]:
        """The tasks that should run."""
        options = ("--no-trunc", "--format", "json", "--filter", "desired-state=running")
        output = self.lab.docker(1, "service", "ps", f"fashion_{service}", *options)
        rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        return [
            Task(row["ID"], _number(row["Node"]), row["Image"], row["CurrentState"].startswith("Running"))
            for row in rows
        ]

    def ready(self, service: str = "replica") -> list[Task]:
        """The tasks that are ready, on nodes that are."""
        alive = self.nodes()
        return [task for task in self.tasks(service) if task.ready and task.node in alive]

    def nodes(self) -> set[int]:
        """The nodes that are ready."""
        output = self.lab.docker(1, "node", "ls", "--format", "{{.Hostname}} {{.Status}}")
        return {_number(line.split()[0]) for line in output.splitlines() if line.endswith(" Ready")}

    def converged(self, service: str = "replica") -> bool:
        """Whether no update is under way, and all tasks are ready and have the stack's image."""
        variable = {"replica": "FASHION_REPLICAS", "canary": "FASHION_CANARY_REPLICAS"}[service]
        name = {"replica": "FASHION_IMAGE", "canary": "FASHION_CANARY_IMAGE"}[service]
        ready = self.ready(service)
        return (
            self.update_state(service) in ("", "completed", "rollback_completed")
            and len(ready) == len(self.tasks(service)) == int(self.state[variable])
            and {task.image for task in ready} <= {self.state[name]}
        )

    def restore(self) -> None:
        """Return to three nodes, with three replicas of 1.0 and no canary. Lost nodes may have no replica."""
        wait_until(lambda: len(self.nodes()) == NODES, PATIENCE_S, "all nodes are ready")
        self.apply(**self.base)

    def callers(self, nodes: Sequence[int] = tuple(range(1, NODES + 1)), caller: str = "alice") -> Callers:
        """Callers at the edges of these nodes."""
        return Callers(
            [f"https://{self.lab.address(node)}:8000" for node in nodes],
            self._folder / "keys" / "ca.crt",
            self.keys[caller],
            self._archives,
            self._folder,
            OUTSIDE,
        )

    def container(self, task: Task) -> str:
        """The id of a task's container."""
        form = "{{.Status.ContainerStatus.ContainerID}}"
        return self.lab.docker(1, "inspect", "--type", "task", task.id, "--format", form).strip()

    def inside(self, task: Task, *command: str, check: bool = True) -> str:
        """Run a command in a task's container; returns its output."""
        return self.lab.docker(task.node, "exec", self.container(task), *command, check=check)

    def authority(self) -> str:
        """The path of the certificate authority."""
        return str(self._folder / "keys" / "ca.crt")
