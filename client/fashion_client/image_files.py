"""The files that the arguments of the command line stand for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fashion_client.errors import InputError

# What the service reads; a file that is named by itself may be called anything.
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"})


def find(arguments: Sequence[str]) -> list[Path]:
    """Files as they are; the images of a folder, or the files that a glob matches, sorted by name.

    Raises:
        InputError: a folder without images, or a glob that matches nothing.
    """
    return [path for argument in arguments for path in _files(argument)]


def is_one(arguments: Sequence[str]) -> bool:
    """Whether the arguments name a single file, and not a set that may happen to hold one."""
    return len(arguments) == 1 and not Path(arguments[0]).is_dir() and not _is_glob(arguments[0])


def _files(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
        if not found:
            raise InputError(f"{argument}: this folder holds no images ({', '.join(sorted(SUFFIXES))})")
        return found
    if _is_glob(argument):
        pattern = str(path.relative_to(path.anchor))
        found = sorted(file for file in Path(path.anchor).glob(pattern) if file.is_file())
        if not found:
            raise InputError(f"{argument}: no file matches")
        return found
    return [path]


def _is_glob(argument: str) -> bool:
    return any(character in argument for character in "*?[") and not Path(argument).exists()
