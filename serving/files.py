"""Atomic writes, and the folders of installed packages."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file completely or not at all, even during a power cut; create its folder if needed.

    Args:
        path: the file.
        text: its new content.
        mode: its permissions.

    Raises:
        OSError: the file cannot be written; it is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(number, "w") as file:
            file.write(text)
            file.flush()
            os.fchmod(number, mode)
            # Without fsync a power cut can leave an empty file under the final name.
            os.fsync(number)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def package(module: str, distribution: str) -> Path:
    """The folder of an installed package, found without importing it.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{distribution} is not installed; run: make setup")
    return Path(spec.origin).parent
