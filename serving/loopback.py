"""HTTP to the service's own processes."""

from __future__ import annotations

import logging

import httpx

# Or it logs a line for each request.
logging.getLogger("httpx").setLevel(logging.WARNING)


def client(timeout: float, http2: bool = False) -> httpx.Client:
    """A client for addresses of this machine.

    Args:
        timeout: seconds for connecting, and for each piece of an answer.
        http2: speak HTTP/2 from the first byte, as gRPC does.
    """
    # A proxy of the environment cannot reach this machine's loopback address. Without TLS no certificates are read.
    return httpx.Client(timeout=timeout, trust_env=False, verify=False, http1=not http2, http2=http2)
