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


class Lab:
    """The nodes of a cluster, numbered from 1.

    Attributes:
        program: the path of the lab's program.
    """

    def __init__(self) -> None:
        self.program = labs.program("KUBE_LAB", "a Kubernetes cluster (tests/fleet/kubernetes/lab.py)")

    def do(self, *arguments: str) -> str:
        """Run a command of the lab."""
        return run(self.program, *arguments, timeout=labs.LAB_TIMEOUT_S)

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        """Run kubectl; returns its output."""
        return run(self.program, "kubectl", *arguments, check=check)

    @contextmanager
    def lost(self, node: int) -> Iterator[None]:
        """Kill a node; at the end of the context start it."""
        self.do("crash", str(node))
        try:
            yield
        finally:
            self.do("start", str(node))

    @contextmanager
    def cut_off(self, node: int) -> Iterator[None]:
        """Cut a node off from the network during the context."""
        link = ("ip", "-n", "kbr", "link", "set", f"vkn{node}")
        run(*link, "down")
        try:
            yield
        finally:
            run(*link, "up")

    @contextmanager
    def without_control(self) -> Iterator[None]:
        """Kill the control plane; at the end of the context start it."""
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
        """The address of a node."""
        return f"10.98.0.1{node}"

    def up(self) -> None:
        """Start the cluster."""
        self.do("up", str(NODES))
