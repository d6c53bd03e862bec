"""API keys and TLS in the container, set up as in docs/operations.md."""

from __future__ import annotations

import secrets

import grpc
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.settings import ROOT
from tests.support.composing import IMAGE, TIMEOUT, run

BOOT = (ROOT / "examples" / "ankle_boot.png").read_bytes()


@pytest.fixture(params=["chown -R 10001 /keys", "chown -R 0:10001 /keys && chmod 440 /keys/*"], ids=["owner", "group"])
def locked(ready, tmp_path, request):
    """The service with keys and TLS, a key, and the authority's certificate."""
    keys = tmp_path / "keys"
    run("serving/gateway/certs.sh", str(keys))
    key = secrets.token_hex(32)
    (keys / "api_keys").write_text(f"{key} alice;\n")
    (keys / "api_keys").chmod(0o600)
    mounted = ("--user", "0", "--volume", f"{keys}:/keys", "--entrypoint", "sh")
    run("docker", "run", "--rm", *mounted, IMAGE, "-c", request.param)
    ready.up(FASHION_API_KEYS=str(keys / "api_keys"), FASHION_CERTIFICATES=str(keys))
    return ready, key, keys / "ca.crt"


def test_keys_and_tls_work_in_the_container(locked):
    stack, key, authority = locked
    url = f"https://127.0.0.1:{stack.gateway_port}/predictions/fashion_convnet"

    def ask(**headers: str) -> requests.Response:
        headers["Content-Type"] = "image/png"
        return requests.post(url, BOOT, headers=headers, verify=str(authority), timeout=TIMEOUT)

    assert ask().status_code == 401
    assert ask(**{"X-API-Key": secrets.token_hex(32)}).status_code == 403
    answer = ask(**{"X-API-Key": key})
    assert (answer.status_code, answer.json()["label"]) == (200, "Ankle boot")
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"https://127.0.0.1:{stack.gateway_port}/healthz", timeout=TIMEOUT)
    assert requests.get(f"{stack.url}/healthz", timeout=TIMEOUT).status_code == 400
    credentials = grpc.ssl_channel_credentials(authority.read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{stack.grpc_port}", credentials) as channel:
        health, request = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest()
        with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            health.Check(request, timeout=TIMEOUT)
        answer = health.Check(request, timeout=TIMEOUT, metadata=[("x-api-key", key)])
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
