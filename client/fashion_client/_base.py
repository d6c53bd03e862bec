"""The settings that both clients share, from arguments, the environment or defaults."""

from __future__ import annotations

import abc
import os
from typing import TypedDict
from urllib.parse import urlsplit

from fashion_client.errors import InputError

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_MODEL = "fashion_convnet"
URL_VARIABLE = "FASHION_URL"
KEY_VARIABLE = "FASHION_API_KEY"


class PredictOptions(TypedDict, total=False):
    """The options of ``predict``, the same for every form of its images."""

    model: str
    version: str | None
    top_k: int | None


class BaseClient(abc.ABC):
    """A client's validated settings, and a cache of the models' example shapes."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        # An image takes milliseconds; a piece of a thousand arrays behind a full queue may take seconds.
        timeout: float = 30.0,
        retries: int = 3,
        # Keeps two workers busy while the next pieces are sent; more requests would only queue in the service.
        in_flight: int = 4,
    ) -> None:
        source = URL_VARIABLE if url is None else "url"
        address = (os.environ.get(URL_VARIABLE) or DEFAULT_URL) if url is None else url
        key = os.environ.get(KEY_VARIABLE) if api_key is None else api_key
        if not _is_address(address):
            raise InputError(f"{source} must be an address such as {DEFAULT_URL}, got {address!r}")
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            # The message does not quote the key, because error messages end up in logs.
            raise InputError(f"the API key (api_key or {KEY_VARIABLE}) must be printable ASCII without spaces")
        if not timeout > 0:
            raise InputError(f"timeout must be above 0 seconds, got {timeout}")
        if retries < 0:
            raise InputError(f"retries must be 0 or more, got {retries}")
        if in_flight < 1:
            raise InputError(f"in_flight must be 1 or more, got {in_flight}")
        self._url = address.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout = timeout
        self._retries = retries
        self._in_flight = in_flight
        self._example_shapes: dict[str, tuple[int, ...]] = {}
        self._open()

    @abc.abstractmethod
    def _open(self) -> None:
        """Create the connection pool."""


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        # `port` raises ValueError for an invalid port.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.query
    except ValueError:
        return False
