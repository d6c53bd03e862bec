"""Write ``index.json`` of a model store: the archives that may be loaded, with the SHA-256 of each.

    {"fashion_mlp.mar": {"model": "fashion_mlp", "version": "1.0", "sha256": "…", "accuracy_floor": 0.895}}

``serving/store/index.py`` reads it. An archive that is not listed or has another digest is never loaded.
``index.json.sig`` is the Ed25519 signature of its bytes, if it was signed; ``serving/store/signing.py`` verifies it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from models.errors import SigningError

NAME = "index.json"
SIGNATURE_NAME = f"{NAME}.sig"
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


def private_key(path: Path) -> Ed25519PrivateKey:
    """The key that signs an index, from a PEM file as ``openssl genpkey -algorithm ed25519`` writes it.

    Raises:
        SigningError: the file cannot be read, or holds no Ed25519 private key without a password.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise SigningError(f"{path} cannot be read: {error.strerror or error}") from error
    # TypeError: the key has a password.
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SigningError(f"{path} is not a private key in PEM without a password: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningError(f"{path} must hold an Ed25519 key; write one with: openssl genpkey -algorithm ed25519")
    return key


def sign(store: Path, key: Ed25519PrivateKey) -> None:
    """Write the signature of a store's index.

    Args:
        store: the model store.
        key: from ``private_key``.

    Raises:
        OSError: the index cannot be read, or the signature cannot be written; the old signature is unchanged.
    """
    with (store / _LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fresh = store / f".{SIGNATURE_NAME}.new"
        try:
            fresh.write_bytes(key.sign((store / NAME).read_bytes()))
            fresh.replace(store / SIGNATURE_NAME)
        finally:
            fresh.unlink(missing_ok=True)
