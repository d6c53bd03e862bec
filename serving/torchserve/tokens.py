"""TorchServe's own tokens: made by each start of its frontend, read from the file where it leaves them.

    {"management": {"key": …, "expiration time": …}, "inference": {…}, "API": {"key": …}}

The file is ``run/key_file.json``, for its owner's eyes alone. A frontend that starts again makes new keys, so nobody
keeps one: the file is read again whenever it has changed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from serving.errors import TokenError
from serving.settings import Settings

Kind = Literal["management", "inference"]
# Gives the headers that one API asks for, none without tokens; called for each request.
Headers = Callable[[], dict[str, str]]


def headers(settings: Settings, kind: Kind) -> Headers:
    """What sends the token of one API of the service with these settings."""
    path = settings.key_file
    return (lambda: {"Authorization": f"Bearer {key(path, kind)}"}) if settings.tokens else dict


def key(path: Path, kind: Kind) -> str:
    """The key of one API.

    Raises:
        TokenError: the file is missing or holds no such key.
    """
    try:
        return str(_read(path, path.stat().st_mtime_ns)[kind]["key"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TokenError(f"{path} holds no {kind} key ({error!r}); a start with FASHION_TOKENS=1 makes it") from error


@functools.lru_cache(maxsize=1)
def _read(path: Path, _changed: int) -> dict[str, Any]:
    keys: dict[str, Any] = json.loads(path.read_text())
    return keys
