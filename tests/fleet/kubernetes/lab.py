"""A Kubernetes cluster on this machine, control plane and nodes in network namespaces of their own.

``KUBE_LAB`` names the program that makes it::

    up N             start the control plane, in the namespace kn0, and N nodes, node K in the namespace knK
    kubectl …        run kubectl as the cluster's administrator
    kustomize …      run kustomize
    load IMAGE…      copy images from the machine's engine to every node
    crash K          kill node K with all its processes
    start K          start it again
    down             end everything that the program has started

Node K is called knK and has the address 10.98.0.1K. Its link is vknK in the namespace kbr. The namespace kn0 reaches
nodes and pods.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from tests.fleet import labs
from tests.fleet.fleet import NODES, PATIENCE_S
from tests.support.composing import run, wait_until

CONTROL = "kn0"
OUTSIDE = ("ip", "netns", "exec", CONTROL)
# In the order of their start.
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


class Lab(labs.Lab):
    """The nodes of a cluster."""

    def __init__(self) -> None:
        super().__init__("KUBE_LAB", "a Kubernetes cluster (tests/fleet/kubernetes/lab.py)")

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        """Run kubectl; returns its output."""
        return run(self.program, "kubectl", *arguments, check=check)

    @contextmanager
    def cut_off(self, node: int) -> Iterator[None]:
        link = ("ip", "-n", "kbr", "link", "set", f"vkn{node}")
        run(*link, "down")
        try:
            yield
        finally:
            run(*link, "up")

    @contextmanager
    def without_control(self) -> Iterator[None]:
        """See the base class."""
        pids = run("ip", "netns", "pids", CONTROL).split()
        processes = {process.name(): process for process in map(psutil.Process, map(int, pids))}
        parts = [processes[name] for name in CONTROL_PLANE]
        # With the path of the program, because the lab's folders are not on this process's PATH.
        commands = [([part.exe(), *part.cmdline()[1:]], part.cwd()) for part in parts]
        for part in parts:
            part.kill()
        try:
            yield
        finally:
            for command, folder in commands:
                # The lab's `down` ends all processes in the namespace.
                subprocess.Popen([*OUTSIDE, *command], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_until(lambda: self.kubectl("get", "--raw", "/readyz", check=False) == "ok", PATIENCE_S, "API server")

    @staticmethod
    def address(node: int) -> str:
        return f"10.98.0.1{node}"

    def up(self) -> None:
        self.do("up", str(NODES))
