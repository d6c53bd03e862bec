"""TorchServe's own tokens: made by each start of its frontend, read from the file where it leaves them, exchanged.

    {"management": {"key": …, "expiration time": …}, "inference": {…}, "API": {"key": …}}

The file is ``run/key_file.json``, for its owner's eyes alone. A frontend that starts again makes new keys, so nobody
keeps one: the file is read again whenever it has changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import requests

from serving.errors import RefusedError, TokenError, UnreachableError
from serving.settings import Settings

Kind = Literal["management", "inference"]
_ANSWER_TIMEOUT = 10.0


def given_by(settings: Settings) -> Keys | None:
    """The keys of the service with these settings; ``None`` where TorchServe asks for none."""
    return Keys(settings.key_file) if settings.tokens else None


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
        return self._key(kind)

    def management(self) -> str:
        """The key of the management API; raises as ``of`` does."""
        return self._key("management")

    def inference(self) -> str:
        """The key of the inference API; raises as ``of`` does."""
        return self._key("inference")

    def exchange(self, url: str, kind: Kind) -> None:
        """Have TorchServe make a new key in place of one, which it takes no longer from then on.

        Args:
            url: its management API, without a slash at the end.
            kind: which key.

        Raises:
            TokenError: as for ``of``.
            UnreachableError, RefusedError: TorchServe does not answer, or will not.
        """
        before = self._key(kind)
        try:
            with requests.Session() as session:
                session.trust_env = False
                answer = session.get(
                    f"{url}/token",
                    params={"type": kind},
                    headers={"Authorization": f"Bearer {self._key('API')}"},
                    timeout=_ANSWER_TIMEOUT,
                )
        except requests.RequestException as error:
            raise UnreachableError(f"the management API at {url} does not answer: {error}") from error
        if not answer.ok or self._key(kind) == before:
            raise RefusedError(f"TorchServe made no new {kind} key: {answer.text[:200].strip()} ({answer.status_code})")

    def _key(self, kind: str) -> str:
        try:
            changed = self._path.stat().st_mtime_ns
            if self._read is None or self._read[0] != changed:
                self._read = changed, json.loads(self._path.read_text())
            return str(self._read[1][kind]["key"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TokenError(
                f"{self._path} holds no {kind} key ({error!r}); a start with FASHION_TOKENS=1 makes it"
            ) from error
