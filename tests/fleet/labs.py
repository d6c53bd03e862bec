"""What the tests of a fleet need on this machine. Without a prerequisite they fail, and say which."""

from __future__ import annotations

import abc
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.support.composing import run

# Images of a gigabyte are written to, or removed from, three nodes.
LAB_TIMEOUT_S = 600.0


class Lab(abc.ABC):
    """The nodes of an engine on this machine, numbered from 1.

    Args:
        variable, what: as of ``program``.

    Attributes:
        program: the path of the lab's program. It has at least the commands ``up``, ``load``, ``crash``, ``start`` and
            ``down``.
    """

    def __init__(self, variable: str, what: str) -> None:
        self.program = program(variable, what)

    def do(self, *arguments: str) -> str:
        """Run a command of the lab."""
        return run(self.program, *arguments, timeout=LAB_TIMEOUT_S)

    @contextmanager
    def lost(self, node: int) -> Iterator[None]:
        """Kill a node; at the end of the context start it."""
        self.do("crash", str(node))
        try:
            yield
        finally:
            self.start(node)

    def start(self, node: int) -> None:
        """Start a node that was killed."""
        self.do("start", str(node))

    @abc.abstractmethod
    def up(self) -> None:
        """Start all nodes."""

    @staticmethod
    @abc.abstractmethod
    def address(node: int) -> str:
        """The address of a node."""

    @abc.abstractmethod
    def cut_off(self, node: int) -> AbstractContextManager[None]:
        """Cut a node off from the network during the context."""

    @abc.abstractmethod
    def without_control(self) -> AbstractContextManager[None]:
        """Kill what decides about replicas; at the end of the context start it."""


@contextmanager
def running(lab: Lab, make_stores: Callable[[], dict[str, Path]]) -> Iterator[dict[str, Path]]:
    """Start a lab while ``make_stores`` builds the images; at the end of the context remove it.

    Yields:
        The model stores of the images by version.
    """
    lab.do("down")
    try:
        with ThreadPoolExecutor(1) as pool:
            started = pool.submit(lab.up)
            stores = make_stores()
            started.result()
        yield stores
    finally:
        lab.do("down")


def program(variable: str, what: str) -> str:
    """The path of the program that makes a lab.

    Args:
        variable: the environment variable that names it.
        what: what the program makes, and where its commands are described.
    """
    name = os.environ.get(variable, "")
    missing = {
        "Linux": platform.system() == "Linux",
        "root": os.geteuid() == 0,
        "the program ip (on Debian: sudo apt-get install iproute2)": shutil.which("ip"),
        f"{variable}, the path of a program that makes {what}": os.access(name, os.X_OK),
    }
    if lacking := [each for each, there in missing.items() if not there]:
        pytest.fail(f"the tests of a fleet need {', and '.join(lacking)}")
    return str(Path(name).resolve())
