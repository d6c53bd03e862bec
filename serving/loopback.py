"""HTTP to the service's own processes."""

from __future__ import annotations

import logging

import httpx

# At level INFO httpx logs a line for each request.
logging.getLogger("httpx").setLevel(logging.WARNING)


def client(timeout: float, http2: bool = False) -> httpx.Client:
    """An HTTP client for addresses of this machine.

    Args:
        timeout: seconds for connecting, and for each read.
        http2: use HTTP/2 from the first byte, as gRPC does.
    """
    # trust_env: a proxy from the environment cannot reach this machine's loopback address.
    # verify: these addresses have no TLS, and loading the CA certificates takes time.
    return httpx.Client(timeout=timeout, trust_env=False, verify=False, http1=not http2, http2=http2)  # noqa: S501
