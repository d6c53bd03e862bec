"""Small disks, to test full and read-only ones."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small(folder: Path, size: str) -> Iterator[Path]:
    """Mount a small disk at an empty folder. The test is skipped unless it runs as root on Linux.

    Args:
        folder: created if needed.
        size: in the format of ``mount``, such as ``4m``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform != "linux" or os.geteuid() != 0 or _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder):
        pytest.skip("only root on Linux can make a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a disk of ``small`` read-only."""
    assert _mount("-o", "remount,ro", folder) == 0
    try:
        yield
    finally:
        assert _mount("-o", "remount,rw", folder) == 0


def fill(folder: Path) -> Path:
    """Fill a disk with one file; the file."""
    path = folder / "filling"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return path


def _mount(*arguments: str | Path) -> int:
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode
