"""Write ``index.json`` of a model store: the archives that may be loaded, with the SHA-256 of each.

    {"fashion_mlp.mar": {"model": "fashion_mlp", "version": "1.0", "sha256": "…", "accuracy_floor": 0.895}}

``serving/store/index.py`` reads it. An archive that is not listed or has another digest is never loaded.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from pathlib import Path
from typing import Any

NAME = "index.json"
_LOCK = ".index.lock"


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(store: Path) -> dict[str, dict[str, Any]]:
    """The index as file name → entry; empty if it is missing or unreadable."""
    try:
        index = json.loads((store / NAME).read_text())
    except (OSError, ValueError):
        return {}
    return index if isinstance(index, dict) else {}


def lists(store: Path, path: Path) -> bool:
    """Whether the index lists this archive with its present digest."""
    entry = read(store).get(path.name)
    return isinstance(entry, dict) and entry.get("sha256") == digest(path)


def record(store: Path, path: Path, model: str, version: str, accuracy_floor: float, fresh: Path | None = None) -> None:
    """List an archive in the index, replacing an entry of the same file name.

    Args:
        store: the model store.
        path: the archive.
        model, version: as in its manifest.
        accuracy_floor: the catalog's lowest test accuracy for going live.
        fresh: a new archive on the same disk that replaces ``path``. The new index is written first, so that a full
            disk leaves archive and index unchanged.

    Raises:
        OSError: the index cannot be written; index and archive are unchanged.
    """
    entry = {"model": model, "version": version, "sha256": digest(fresh or path), "accuracy_floor": accuracy_floor}
    # One writer at a time, so that the index lists both of two archives packed concurrently.
    with (store / _LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        index = store / f".{NAME}.new"
        try:
            index.write_text(json.dumps({**read(store), path.name: entry}, indent=2, sort_keys=True) + "\n")
            if fresh:
                fresh.replace(path)
            index.replace(store / NAME)
        finally:
            index.unlink(missing_ok=True)
