"""TorchServe's own tokens: each start of its frontend makes new ones and writes them to a file.

    {"management": {"key": …, "expiration time": …}, "inference": {…}, "API": {"key": …}}

The file is ``run/key_file.json``, readable by its owner only. It is read again whenever it has changed, because a
restarted frontend accepts only its new keys.
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
# Returns the headers with the token of one API, none without tokens; called for each request.
Headers = Callable[[], dict[str, str]]


def headers(settings: Settings, kind: Kind) -> Headers:
    """A function that returns the headers with the token of one API."""
    path = settings.key_file
    return (lambda: {"Authorization": f"Bearer {key(path, kind)}"}) if settings.tokens else dict


def key(path: Path, kind: Kind) -> str:
    """The key of one API.

    Raises:
        TokenError: the file is missing or has no such key.
    """
    try:
        return str(_read(path, path.stat().st_mtime_ns)[kind]["key"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TokenError(f"{path} has no {kind} key ({error!r}); a start with FASHION_TOKENS=1 writes it") from error


@functools.lru_cache(maxsize=1)
def _read(path: Path, _modified_ns: int) -> dict[str, Any]:
    keys: dict[str, Any] = json.loads(path.read_text())
    return keys
