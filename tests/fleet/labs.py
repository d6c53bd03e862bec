"""What the tests of a fleet need on this machine. Without a prerequisite they fail, and say which."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

# Images of a gigabyte are written to, or removed from, three nodes.
LAB_TIMEOUT_S = 600.0


def start(up: Callable[[], None], make_stores: Callable[[], dict[str, Path]]) -> dict[str, Path]:
    """Start a lab while the images are built; returns the model stores of the images by version."""
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(up)
        stores = make_stores()
        started.result()
    return stores


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
