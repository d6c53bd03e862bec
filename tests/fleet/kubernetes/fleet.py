"""A fleet on the lab's cluster: its manifests, its pods, and its callers."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving.settings import ROOT
from tests.fleet import labs, programs
from tests.fleet.fleet import NODES, PATIENCE_S, Fleet, Replica, image
from tests.fleet.kubernetes.lab import OUTSIDE, Lab
from tests.fleet.load import Callers
from tests.support.composing import run, wait_until

NAMESPACE = "fashion-serve"
DEPLOYMENT = "deployment/fashion-serve"
CANARY = "deployment/fashion-serve-canary"
PORT = 30800
FIRST_KEYS = ("alice",)
ROLLOUT_TIMEOUT = f"--timeout={PATIENCE_S:.0f}s"


@contextmanager
def running(folder: Path, make_stores: Callable[[], dict[str, Path]]) -> Iterator[KubernetesFleet]:
    """Start a cluster with a fleet, whose images ``make_stores`` builds; at the end of the context remove both."""
    lab = Lab()
    with labs.running(lab, make_stores) as stores:
        lab.do("load", *map(image, stores))
        fleet = KubernetesFleet(lab, folder, stores)
        fleet.create()
        yield fleet


class KubernetesFleet(Fleet):
    """The objects of ``deploy/kubernetes/overlays/lab``, of which each fleet has a copy to edit."""

    lab: Lab
    published = ()
    # One of four replicas.
    canary_percent = 25
    # Four times the standard deviation of the share is below 2 points.
    canary_calls = 8_000
    # A Service sends a connection to one replica, and tries no other.
    lost_with_network = ("late",)
    lost_until_noticed = ("unconnected",)

    def __init__(self, lab: Lab, folder: Path, stores: dict[str, Path]) -> None:
        super().__init__(lab, folder, stores)
        self._manifests = folder / "kubernetes"
        shutil.copytree(ROOT / "deploy/kubernetes", self._manifests)

    def create(self) -> None:
        """Make the secret, and apply the manifests."""
        # The scheduler prefers nodes that are known to have the image.
        wait_until(self._nodes_know_images, PATIENCE_S, "every node lists the image")
        started = time.monotonic()
        self.lab.kubectl("apply", "--filename", str(self._manifests / "base/namespace.yaml"))
        self._set_keys(*FIRST_KEYS)
        self.deploy("1.0")
        self.start_s = time.monotonic() - started
        assert {replica.node for replica in self.ready()} == set(range(1, NODES + 1)), "each node has a replica"

    def _nodes_know_images(self) -> bool:
        nodes = self._get("nodes")["items"]
        return all(image("1.0") in str(node["status"].get("images")) for node in nodes)

    def _set_keys(self, *callers: str) -> None:
        self._valid = callers
        path = self._folder / "api_keys"
        path.write_text(self._key_lines(*callers))
        create = ("create", "secret", "generic", "fashion-serve-keys", f"--from-file={path}", "--dry-run=client")
        (self._folder / "secret.yaml").write_text(self._kubectl(*create, "--output=yaml"))
        self._kubectl("apply", "--filename", str(self._folder / "secret.yaml"))

    def _kubectl(self, *arguments: str, check: bool = True) -> str:
        return self.lab.kubectl("--namespace", NAMESPACE, *arguments, check=check)

    def _get(self, *arguments: str) -> dict[str, Any]:
        described: dict[str, Any] = json.loads(self._kubectl("get", *arguments, "--output=json"))
        return described

    def _apply(self, version: str, overlay: str = "lab", edited: str = "lab") -> None:
        folder = self._manifests / "overlays" / edited
        setting = ("edit", "set", "image", f"fashion-serve={image(version)}")
        run("env", f"--chdir={folder}", self.lab.program, "kustomize", *setting)
        self.lab.kubectl("apply", "--kustomize", str(self._manifests / "overlays" / overlay))

    def _await_rollout(self, deployment: str = DEPLOYMENT) -> None:
        def done() -> bool:
            # It also ends at the lab's short progress deadline, after which a rollout on a busy machine goes on.
            output = self._kubectl("rollout", "status", deployment, ROLLOUT_TIMEOUT, check=False)
            return "successfully rolled out" in output

        wait_until(done, PATIENCE_S, f"{deployment} has converged")

    def replicas(self) -> list[Replica]:
        alive = self._nodes()
        return [
            Replica(
                pod["metadata"]["name"],
                _number(pod["spec"].get("nodeName", "")),
                pod["spec"]["containers"][0]["image"],
                _condition(pod, "Ready") and _number(pod["spec"]["nodeName"]) in alive,
            )
            for pod in self._get("pods", "--selector=fashion-serve/track=stable")["items"]
            if "deletionTimestamp" not in pod["metadata"]
        ]

    def _nodes(self) -> set[int]:
        return {_number(node["metadata"]["name"]) for node in self._get("nodes")["items"] if _condition(node, "Ready")}

    def deploy(self, version: str) -> None:
        self._apply(version)
        self._await_rollout()

    def back(self) -> None:
        self._kubectl("rollout", "undo", DEPLOYMENT)
        self._await_rollout()

    def deploy_bad(self, version: str) -> None:
        """See the base class. Kubernetes stops at the first new replica, and does not go back by itself."""
        self._apply(version)
        output = self._kubectl("rollout", "status", DEPLOYMENT, ROLLOUT_TIMEOUT, check=False)
        assert "exceeded its progress deadline" in output
        self.back()

    def begin_canary(self, version: str) -> None:
        self._apply(version, "lab/canary", edited="canary/canary")
        self._await_rollout(CANARY)

    def canary_counts(self) -> dict[str, int]:
        """See the base class. A Service chooses a replica for each connection, so each request has its own."""
        command = [*OUTSIDE, "python3", "-c", programs.CONNECT, f"{self._url(1)}", self.keys["alice"], "2000"]
        counts: dict[str, int] = json.loads(run(*command))
        return counts

    def promote(self, version: str) -> None:
        self.deploy(version)
        self.abort()

    def abort(self) -> None:
        self._kubectl("delete", CANARY)

    def scale(self, count: int) -> None:
        """See the base class. The autoscaler keeps the number within its limits."""
        limits = {"spec": {"minReplicas": count, "maxReplicas": count}}
        self._kubectl("patch", "hpa", "fashion-serve", "--type=merge", f"--patch={json.dumps(limits)}")

        def scaled() -> bool:
            replicas = self.replicas()
            return len(replicas) == count and all(replica.ready for replica in replicas)

        wait_until(scaled, PATIENCE_S, f"{count} replicas")

    def use_keys(self, *callers: str) -> None:
        self._set_keys(*callers)
        self._kubectl("rollout", "restart", DEPLOYMENT)
        self._await_rollout()

    def restore(self) -> None:
        wait_until(lambda: len(self._nodes()) == NODES, PATIENCE_S, "all nodes are ready")
        self._kubectl("delete", CANARY, "--ignore-not-found")
        if self._valid != FIRST_KEYS:
            self.use_keys(*FIRST_KEYS)
        self.deploy("1.0")

    def _url(self, node: int) -> str:
        return f"http://{self.lab.address(node)}:{PORT}"

    def callers(self, caller: str = "alice", without: int | None = None) -> Callers:
        urls = [self._url(node) for node in range(1, NODES + 1) if node != without]
        return Callers(urls, None, self.keys[caller], self._archives, self._folder, OUTSIDE)

    def inside(self, replica: Replica, *command: str, check: bool = True) -> str:
        return self._kubectl("exec", replica.id, "--", *command, check=check)

    def open_ports(self, ports: Sequence[int]) -> list[list[int]]:
        """See the base class. The lab does not enforce the NetworkPolicy, so callers reach what neighbors reach."""
        pods = self._get("pods", "--selector=fashion-serve/track=stable")["items"]
        addresses = [pod["status"]["podIP"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        output = run(*OUTSIDE, "python3", "-c", programs.SCAN, *addresses, "/", *map(str, ports))
        return list(json.loads(output).values())


def _number(node: str) -> int:
    return int(node.removeprefix("kn") or 0)


def _condition(described: dict[str, Any], kind: str) -> bool:
    conditions = described["status"].get("conditions", [])
    return any(each["type"] == kind and each["status"] == "True" for each in conditions)
