"""``index.json`` of the model store, which ``models/index_writer.py`` writes: what each archive must be byte for byte.

Only what the index lists is ever loaded, and only if it has the digest that the index gives.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from serving.errors import ArchiveError

NAME = "index.json"


@dataclasses.dataclass(frozen=True)
class Listed:
    """One archive as the index has it.

    Attributes:
        path: the file.
        model, version: what it holds.
        sha256: its digest, in hexadecimal digits.
        accuracy_floor: test accuracy under which the version may not go live, 0 to 1.
    """

    path: Path
    model: str
    version: str
    sha256: str
    accuracy_floor: float


def read(store: Path) -> list[Listed]:
    """All entries of a store's index, by model and version.

    Raises:
        ArchiveError: there is no index, it cannot be understood, it is empty, or two entries are the same version.
    """
    path = store / NAME
    try:
        raw = json.loads(path.read_text())
        listed = [
            Listed(store / name, entry["model"], entry["version"], entry["sha256"], float(entry["accuracy_floor"]))
            for name, entry in raw.items()
            # A name with a folder in it could lead out of the store.
            if Path(name).name == name
        ]
    except FileNotFoundError:
        raise ArchiveError(f"{store} holds no archive: there is no {NAME}; run: make archive") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveError(f"{path} is not an index of archives ({error!r}); run: make archive") from error
    if not listed:
        raise ArchiveError(f"{store} holds no archive: {NAME} is empty; run: make archive")
    seen: dict[tuple[str, str], Listed] = {}
    for entry in listed:
        other = seen.setdefault((entry.model, entry.version), entry)
        if other is not entry:
            raise ArchiveError(
                f"{other.path} and {entry.path} both hold {entry.model} {entry.version}; take one out of {path}"
            )
    return sorted(listed, key=lambda entry: (entry.model, version_key(entry.version)))


def version_key(version: str) -> tuple[int, ...]:
    """By which versions are in order: 1.10 after 1.9."""
    return tuple(int(part) if part.isdecimal() else 0 for part in version.split("."))


def unlisted(store: Path, listed: list[Listed]) -> list[Path]:
    """Archives in the store that the index does not have."""
    known = {entry.path.name for entry in listed}
    return [path for path in sorted(store.glob("*.mar")) if path.name not in known]


def verify(entry: Listed) -> None:
    """Compare an archive's bytes with its digest.

    Raises:
        ArchiveError: it is missing, cannot be read, or is not what was packed.
    """
    again = f"run: make archive MODEL={entry.model} VERSION={entry.version}"
    try:
        found = hashlib.sha256(entry.path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise ArchiveError(f"{entry.path} is missing, which {NAME} lists; {again}") from None
    except OSError as error:
        raise ArchiveError(f"{entry.path} cannot be read: {error.strerror or error}") from error
    if found != entry.sha256:
        raise ArchiveError(
            f"{entry.path} is not what was packed: its SHA-256 begins {found[:12]}, "
            f"{NAME} says {entry.sha256[:12]}; {again}"
        )
