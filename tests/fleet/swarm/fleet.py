"""A fleet on the lab's swarm: its stack, its tasks, and its callers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from serving.settings import ROOT
from tests.fleet import images, labs, programs
from tests.fleet.fleet import NODES, PATIENCE_S, REGISTRY, Fleet, Replica, image
from tests.fleet.load import Callers
from tests.fleet.swarm.lab import MANAGER, OUTSIDE, Lab
from tests.support import scenes
from tests.support.composing import run, wait_until

EDGE = f"{REGISTRY}/fashion-serve-edge:test"
FILES = (ROOT / "deploy/swarm/stack.yml", ROOT / "tests/fleet/swarm/lab.yml")
# Sets of valid API keys, each a secret.
KEYS = (["alice"], ["alice", "bob"], ["bob"])


@contextmanager
def running(folder: Path, make_stores: Callable[[], dict[str, Path]]) -> Iterator[SwarmFleet]:
    """Start a swarm with a fleet, whose images ``make_stores`` builds; at the end of the context remove both."""
    lab = Lab()
    with labs.running(lab, make_stores) as stores:
        edge = images.build(EDGE, ROOT, "--target", "edge", "--file", "docker/Dockerfile")
        lab.do("load", *map(image, stores), edge)
        fleet = SwarmFleet(lab, folder, stores)
        fleet.create()
        yield fleet


def _number(node: str) -> int:
    return int(node.removeprefix("node") or 0)


class SwarmFleet(Fleet):
    """A stack whose state is the variables of ``deploy/swarm/fleet.env.example``.

    Attributes:
        state: the variables.
        base: their first values.
    """

    lab: Lab
    published = (8000, 8001)
    canary_percent = 10
    canary_calls = 20_000

    def __init__(self, lab: Lab, folder: Path, stores: dict[str, Path]) -> None:
        super().__init__(lab, folder, stores)
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

    def create(self) -> None:
        """Make the secrets, and deploy the stack."""
        certificate = self._folder / "keys"
        addresses = [self.lab.address(node) for node in range(1, NODES + 1)]
        run("serving/gateway/certs.sh", str(certificate), *addresses)
        pair = [(certificate / name).read_text() for name in ("gateway.crt", "gateway.key")]
        self._secret("certificate-1", "".join(pair))
        for names in KEYS:
            self._secret("keys-" + "-".join(names), self._key_lines(*names))
        started = time.monotonic()
        self.apply()
        self.start_s = time.monotonic() - started
        assert {task.node for task in self.ready()} == set(range(1, NODES + 1)), "each node has a replica"

    def _secret(self, name: str, content: str) -> None:
        path = self._folder / name
        path.write_text(content)
        self.lab.docker(MANAGER, "secret", "create", name, str(path))

    def apply(self, *files: Path, **changes: str) -> None:
        """Deploy the stack with further files and these changes; wait until replicas and canaries have converged."""
        self._begin(*files, **changes)
        for service in ("replica", "canary"):
            wait_until(partial(self._converged, service), PATIENCE_S, f"{service} has converged")

    def _begin(self, *files: Path, **changes: str) -> None:
        self.state.update(changes)
        options = [option for path in (*FILES, *files) for option in ("--compose-file", str(path))]
        command = ("stack", "deploy", "--detach=true", "--resolve-image", "never", *options, "fashion")
        self.lab.docker(MANAGER, *command, environment=self.state)

    def _update_state(self, service: str = "replica") -> str:
        """The state of a service's update: completed, updating, rollback_completed, …, or empty without one."""
        form = "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}"
        return self.lab.docker(MANAGER, "service", "inspect", f"fashion_{service}", "--format", form).strip()

    def tasks(self, service: str) -> list[Replica]:
        """The tasks of a service that should run."""
        options = ("--no-trunc", "--format", "json", "--filter", "desired-state=running")
        output = self.lab.docker(MANAGER, "service", "ps", f"fashion_{service}", *options)
        rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        alive = self._nodes()
        return [
            Replica(
                row["ID"],
                _number(row["Node"]),
                row["Image"],
                row["CurrentState"].startswith("Running") and _number(row["Node"]) in alive,
            )
            for row in rows
        ]

    def replicas(self) -> list[Replica]:
        return self.tasks("replica")

    def _nodes(self) -> set[int]:
        """The nodes that are ready."""
        output = self.lab.docker(MANAGER, "node", "ls", "--format", "{{.Hostname}} {{.Status}}")
        return {_number(line.split()[0]) for line in output.splitlines() if line.endswith(" Ready")}

    def _converged(self, service: str = "replica") -> bool:
        """Whether no update is under way, and all tasks are ready and have the stack's image."""
        variable = {"replica": "FASHION_REPLICAS", "canary": "FASHION_CANARY_REPLICAS"}[service]
        name = {"replica": "FASHION_IMAGE", "canary": "FASHION_CANARY_IMAGE"}[service]
        tasks = self.tasks(service)
        return (
            self._update_state(service) in ("", "completed", "rollback_completed")
            and len(tasks) == int(self.state[variable])
            and all(task.ready for task in tasks)
            and {task.image for task in tasks} <= {self.state[name]}
        )

    def deploy(self, version: str) -> None:
        self.apply(FASHION_IMAGE=image(version))

    def back(self) -> None:
        self.lab.docker(MANAGER, "service", "rollback", "--detach", "fashion_replica")
        self._await_first_version()

    def deploy_bad(self, version: str) -> None:
        self._begin(FASHION_IMAGE=image(version))
        wait_until(lambda: self._update_state() == "rollback_completed", PATIENCE_S, "rolled back")
        self._await_first_version()

    def _await_first_version(self) -> None:
        self.state["FASHION_IMAGE"] = image("1.0")
        wait_until(self._converged, PATIENCE_S, "1.0 is back")

    def begin_canary(self, version: str) -> None:
        self.apply(FASHION_CANARY_IMAGE=image(version), FASHION_CANARY_REPLICAS="1")

    def canary_counts(self) -> dict[str, int]:
        measured = self.callers().load(10, rate=None).result()
        assert scenes.failed(measured) == {}
        return dict(measured["versions"])

    def promote(self, version: str) -> None:
        self.apply(FASHION_IMAGE=image(version), FASHION_CANARY_REPLICAS="0")

    def abort(self) -> None:
        self.apply(FASHION_CANARY_REPLICAS="0")

    def scale(self, count: int) -> None:
        self.apply(FASHION_REPLICAS=str(count))

    def use_keys(self, *callers: str) -> None:
        self.apply(FASHION_KEYS_SECRET="keys-" + "-".join(callers))

    def restore(self) -> None:
        wait_until(lambda: len(self._nodes()) == NODES, PATIENCE_S, "all nodes are ready")
        self.apply(**self.base)

    def callers(self, caller: str = "alice", without: int | None = None) -> Callers:
        urls = [f"https://{self.lab.address(node)}:8000" for node in range(1, NODES + 1) if node != without]
        return Callers(urls, self.authority(), self.keys[caller], self._archives, self._folder, OUTSIDE)

    def authority(self) -> Path:
        """The file of the certificate authority."""
        return self._folder / "keys" / "ca.crt"

    def inside(self, replica: Replica, *command: str, check: bool = True) -> str:
        form = "{{.Status.ContainerStatus.ContainerID}}"
        container = self.lab.docker(MANAGER, "inspect", "--type", "task", replica.id, "--format", form).strip()
        return self.lab.docker(replica.node, "exec", container, *command, check=check)

    def open_ports(self, ports: Sequence[int]) -> list[list[int]]:
        """See the base class. An edge's task looks, because the replicas' network has no other members."""
        (edge,) = (task for task in self.tasks("edge") if task.node == MANAGER)
        output = self.inside(edge, "python3", "-c", programs.SCAN, "tasks.replica", "/", *map(str, ports))
        return list(json.loads(output).values())
