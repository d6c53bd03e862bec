"""Whether something is ready: the exit code is 0 if it says so within three seconds.

    python -m serving.containers.health [http://127.0.0.1:8002/readyz | grpc://127.0.0.1:8001]

An HTTP address must answer 200, a gRPC server's own health service SERVING. Without an address the gateway is asked.
Runs every few seconds, so it imports as little as it can.
"""

from __future__ import annotations

import ssl
import sys
import urllib.request
from collections.abc import Sequence

from serving import settings

_TIMEOUT = 3.0


def http_ready(url: str) -> bool:
    """Whether an address answers 200."""
    # This asks its own container, by an address that no certificate has.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=_TIMEOUT) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def grpc_ready(address: str) -> bool:
    """Whether the gRPC server at ``host:port`` is SERVING."""
    # The gateway's image has no gRPC.
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    url = arguments[0] if arguments else f"{settings.read().gateway_url}/readyz"
    scheme, _, address = url.partition("://")
    return 0 if (grpc_ready(address) if scheme == "grpc" else http_ready(url)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
