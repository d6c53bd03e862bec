"""TorchServe's own tokens: made by each start of its frontend, read from the file where it leaves them.

    {"management": {"key": …, "expiration time": …}, "inference": {…}, "API": {"key": …}}

The file is ``run/key_file.json``, for its owner's eyes alone. A frontend that starts again makes new keys, so nobody
keeps one: the file is read again whenever it has changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from serving.errors import TokenError
from serving.settings import Settings

Kind = Literal["management", "inference"]
# Gives the bearer token of one API, or ``None`` where none is asked for; called for each request.
Token = Callable[[], str | None]


def of(settings: Settings, kind: Kind) -> Token:
    """The token of one API of the service with these settings."""
    if not settings.tokens:
        return nobody
    keys = Keys(settings.key_file)
    return lambda: keys.of(kind)


def nobody() -> None:
    """The token where none is asked for."""


class Keys:
    """The keys in one file.

    Args:
        path: the file; it may come into being later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, dict[str, Any]] | None = None

    def of(self, kind: Kind) -> str:
        """The key of one API.

        Raises:
            TokenError: the file is missing or holds no such key.
        """
        try:
            changed = self._path.stat().st_mtime_ns
            if self._read is None or self._read[0] != changed:
                self._read = changed, json.loads(self._path.read_text())
            return str(self._read[1][kind]["key"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TokenError(
                f"{self._path} holds no {kind} key ({error!r}); a start with FASHION_TOKENS=1 makes it"
            ) from error
