"""``index.json`` of the model store, the list of its archives with their digests.

``models/index_writer.py`` writes the file. The service loads only archives that the index lists, and only if their
digest is right. So a signature of the index (``signing.py``) covers the archives too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from serving.errors import ArchiveError
from serving.store import signing

NAME = "index.json"


@dataclasses.dataclass(frozen=True)
class Listed:
    """One archive in the index.

    Attributes:
        path: the file.
        model, version: of the archive.
        sha256: the digest of the file, in hexadecimal.
        accuracy_floor: the lowest test accuracy with which the version may go live, 0 to 1.
    """

    path: Path
    model: str
    version: str
    sha256: str
    accuracy_floor: float


def read(store: Path, keys: Path | None) -> list[Listed]:
    """All entries of a store's index, sorted by model and version.

    Args:
        store: the model store.
        keys: the file of public keys, one of which must verify the index; ``None`` for any index.

    Raises:
        ArchiveError: the index is missing, invalid, or empty, lists a version twice, or is not signed by a key.
        SettingError: the file of keys cannot be used.
    """
    path = store / NAME
    try:
        content = path.read_bytes()
        if keys:
            signing.verify(path, content, keys)
        raw = json.loads(content)
        listed = [
            Listed(store / name, entry["model"], entry["version"], entry["sha256"], float(entry["accuracy_floor"]))
            for name, entry in raw.items()
            # A name with a folder could point outside the store.
            if Path(name).name == name
        ]
    except FileNotFoundError:
        raise ArchiveError(f"{store} holds no archive: there is no {NAME}; run: make archive") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveError(f"{path} is not a valid index ({error!r}); run: make archive") from error
    if not listed:
        raise ArchiveError(f"{store} holds no archive: {NAME} is empty; run: make archive")
    seen: dict[tuple[str, str], Listed] = {}
    for entry in listed:
        other = seen.setdefault((entry.model, entry.version), entry)
        if other is not entry:
            raise ArchiveError(
                f"{other.path} and {entry.path} both hold {entry.model} {entry.version}; remove one of them from {path}"
            )
    return sorted(listed, key=lambda entry: (entry.model, version_key(entry.version)))


def version_key(version: str) -> tuple[int, ...]:
    """The sort key of a version: 1.10 after 1.9. A part that is not a number, as in 1.rc1, counts as 0."""
    return tuple(int(part) if part.isdecimal() else 0 for part in version.split("."))


def unlisted(store: Path, listed: list[Listed]) -> list[Path]:
    """Archives in the store that the index does not list."""
    known = {entry.path.name for entry in listed}
    return [path for path in sorted(store.glob("*.mar")) if path.name not in known]


def verify(entry: Listed) -> None:
    """Compare an archive's bytes with its digest.

    Raises:
        ArchiveError: the archive is missing or unreadable, or its digest is wrong.
    """
    remedy = f"run: make archive MODEL={entry.model} VERSION={entry.version}"
    try:
        digest = hashlib.sha256(entry.path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise ArchiveError(f"{entry.path} is missing, but {NAME} lists it; {remedy}") from None
    except OSError as error:
        raise ArchiveError(f"{entry.path} cannot be read: {error.strerror or error}") from error
    if digest != entry.sha256:
        raise ArchiveError(
            f"{entry.path} is not what was packed: its SHA-256 starts with {digest[:12]}, "
            f"{NAME} lists {entry.sha256[:12]}; {remedy}"
        )
