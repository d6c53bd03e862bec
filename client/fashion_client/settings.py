"""Where the service is and how to call it: arguments, environment variables, defaults, each checked at the start."""

from __future__ import annotations

import dataclasses
import os
from urllib.parse import urlsplit

from fashion_client.errors import InputError

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_MODEL = "fashion_convnet"
URL_VARIABLE = "FASHION_URL"
KEY_VARIABLE = "FASHION_API_KEY"

# An image takes milliseconds; a piece of a thousand arrays behind a full queue may take seconds.
DEFAULT_TIMEOUT = 30.0
DEFAULT_RETRIES = 3
# Enough to keep two workers busy while the next pieces travel; more only queue up in the service.
DEFAULT_IN_FLIGHT = 4


@dataclasses.dataclass(frozen=True)
class Settings:
    """Checked settings of a client.

    Attributes:
        url: the service's address, without a slash at its end.
        api_key: sent as ``Authorization: Bearer``, None to send none.
        timeout: seconds to wait for a connection, and again for each part of an answer.
        retries: how often a failed call is repeated, so that there are ``retries + 1`` tries.
        in_flight: requests under way at once in one call that has many examples.
    """

    url: str
    api_key: str | None
    timeout: float
    retries: int
    in_flight: int


def settings(url: str | None, api_key: str | None, timeout: float, retries: int, in_flight: int) -> Settings:
    """Check the arguments of a client; ``url`` and ``api_key`` left out come from the environment.

    Raises:
        InputError: one of them cannot be used; the message names it.
    """
    address, source = (url, "url") if url is not None else (os.environ.get(URL_VARIABLE) or DEFAULT_URL, URL_VARIABLE)
    key = api_key if api_key is not None else os.environ.get(KEY_VARIABLE)
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
    return Settings(address.rstrip("/"), key or None, timeout, retries, in_flight)


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        # Reading the port checks it.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.query
    except ValueError:
        return False
