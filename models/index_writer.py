"""``index.json`` of a model store: which archives belong there, and what each must be byte for byte.

    {"fashion_mlp.mar": {"model": "fashion_mlp", "version": "1.0", "sha256": "…", "accuracy_floor": 0.895}}

``serving/store/index.py`` reads it: an archive that is not listed, or is not what the index says, is never loaded.
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
    """The index, file name to entry; empty where there is none yet or where it cannot be read."""
    try:
        index = json.loads((store / NAME).read_text())
    except (OSError, ValueError):
        return {}
    return index if isinstance(index, dict) else {}


def lists(store: Path, path: Path) -> bool:
    """Whether the index has this archive, with the bytes that it has now."""
    entry = read(store).get(path.name)
    return isinstance(entry, dict) and entry.get("sha256") == digest(path)


def record(store: Path, path: Path, model: str, version: str, accuracy_floor: float, fresh: Path | None = None) -> None:
    """Enter an archive, in place of what the index said of its name.

    Args:
        store: the model store.
        path: the archive.
        model, version: as in its manifest.
        accuracy_floor: the catalog's, under which the version may not go live.
        fresh: what is to take the archive's place, on the same disk; it does so when the new index is written, so that
            a full disk leaves archive and index as they were.

    Raises:
        OSError: the index cannot be written; it is as it was, and so is the archive.
    """
    entry = {"model": model, "version": version, "sha256": digest(fresh or path), "accuracy_floor": accuracy_floor}
    # One writer at a time: two archives that are packed at once must both be in the index.
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
