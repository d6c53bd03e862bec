"""What both clients share: where the service is and how to call it, from arguments, the environment or defaults."""

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
    """The options of ``predict`` that every form of its images takes."""

    model: str
    version: str | None
    top_k: int | None


class BaseClient(abc.ABC):
    """The checked settings of a client, and what it has learned of the models."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        # An image takes milliseconds; a piece of a thousand arrays behind a full queue may take seconds.
        timeout: float = 30.0,
        retries: int = 3,
        # Enough to keep two workers busy while the next pieces travel; more only queue up in the service.
        in_flight: int = 4,
    ) -> None:
        source = URL_VARIABLE if url is None else "url"
        address = (os.environ.get(URL_VARIABLE) or DEFAULT_URL) if url is None else url
        key = os.environ.get(KEY_VARIABLE) if api_key is None else api_key
        if not _is_address(address):
            raise InputError(f"{source} has to be an address such as {DEFAULT_URL}, got {address!r}")
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            # Not quoted: error messages end up in logs.
            raise InputError(
                f"the API key (api_key or {KEY_VARIABLE}) holds a blank, a line break or a non-ASCII character"
            )
        if not timeout > 0:
            raise InputError(f"timeout has to be more than 0 seconds, got {timeout}")
        if retries < 0:
            raise InputError(f"retries has to be 0 or more, got {retries}")
        if in_flight < 1:
            raise InputError(f"in_flight has to be 1 or more, got {in_flight}")
        self._url = address.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout = timeout
        self._retries = retries
        self._in_flight = in_flight
        self._example_shapes: dict[str, tuple[int, ...]] = {}
        self._open()

    @abc.abstractmethod
    def _open(self) -> None:
        """Make the connection pool."""


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        # Reading the port checks it.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.query
    except ValueError:
        return False
