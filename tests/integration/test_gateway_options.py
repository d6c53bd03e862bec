"""The gateway's options: keys, TLS, a rate, a canary; each with its own nginx in front of the same service."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import subprocess
from typing import Any

import grpc
import httpx
import psutil
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving import settings
from serving.gateway import config as gateway_config
from serving.gateway import live_config, nginx_binary, reload
from serving.polling import wait_until
from serving.settings import HOST, ROOT
from serving.store.live import Canary, Live
from tests.support import gateways, packing
from tests.support.gateways import PROBLEM, routes
from tests.support.place import make_place

ALICE, BOB = "a1" * 32, "B2" * 16
TIMEOUT = 60
BODY: dict[str, Any] = {"json": [1, 2, 3], "timeout": TIMEOUT}
OPEN = (
    "/",
    "/docs/",
    "/docs/openapi.yaml",
    "/healthz",
    "/readyz",
    "/ping",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "api_keys"
    path.write_text(f"# callers\n{ALICE} alice;\n{BOB}  bob;\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates") / "keys"
    subprocess.run([ROOT / "serving" / "gateway" / "certs.sh", folder], check=True, capture_output=True)
    return folder


# --- Addresses and HTTP/2 ---


def test_localhost_is_either_loopback_address(tiny_service):
    for host in ("localhost", "[::1]", HOST):
        assert requests.get(f"http://{host}:{tiny_service.settings.gateway.number}/readyz", timeout=TIMEOUT).ok
    health = health_pb2_grpc.HealthStub
    with grpc.insecure_channel(f"[::1]:{tiny_service.settings.grpc.number}") as channel:
        assert health(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT).status == 1


def test_a_port_in_use_on_the_other_loopback_address_is_named(tmp_path):
    place = make_place(tmp_path, tmp_path / "model_store")
    packing.pack(place.settings.model_store)
    with socket.create_server(("::1", place.settings.gateway.number), family=socket.AF_INET6):
        refused = place.run("start")
    assert refused.returncode == 1
    assert f"port {place.settings.gateway.number} (gateway) is in use by" in refused.stderr


def test_http_2_with_prior_knowledge_beside_http_1(tiny_service, tmp_path):
    with gateways.running(tiny_service.settings, tmp_path, nginx="wheel") as gateway:
        assert requests.post(gateway.url + "/predictions/tiny", **BODY).status_code == 200
        with httpx.Client(http1=False, http2=True) as client:
            for content in (b"[1, 2, 3]", iter([b"[1, ", b"2, 3]"])):
                answer = client.post(gateway.url + "/predictions/tiny", content=content, timeout=TIMEOUT)
                assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
            wrong = client.get(gateway.url + "/nosuch")
            assert (wrong.status_code, set(wrong.json())) == (404, PROBLEM)


# --- Pages of other origins ---

SHOP, LOCAL = "https://shop.example", "http://localhost:5173"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type, x-api-key"}


@pytest.fixture(scope="module")
def shared(tiny_service, keys, tmp_path_factory):
    changes = {"cors_origins": (SHOP, LOCAL), "api_keys": keys}
    with gateways.running(tiny_service.settings, tmp_path_factory.mktemp("shared"), **changes) as gateway:
        yield gateway


def _cors(answer):
    prefix = "access-control-"
    return {name.removeprefix(prefix): value for name, value in answer.headers.lower_items() if name.startswith(prefix)}


@pytest.mark.parametrize("origin", [SHOP, LOCAL])
def test_a_listed_origin_may_call(shared, origin):
    preflight = requests.options(
        shared.url + "/predictions/tiny", headers={"Origin": origin, **PREFLIGHT}, timeout=TIMEOUT
    )
    allowed = _cors(preflight)
    assert (preflight.status_code, allowed["allow-origin"], preflight.headers["Vary"]) == (204, origin, "Origin")
    assert {"POST", "PUT", "GET"} <= set(allowed["allow-methods"].split(", "))
    assert {"content-type", "x-api-key", "authorization"} <= set(allowed["allow-headers"].lower().split(", "))
    for headers, status in (({"X-API-Key": ALICE}, 200), ({}, 401), ({"X-API-Key": "0" * 32}, 403)):
        answer = requests.post(shared.url + "/predictions/tiny", headers={"Origin": origin, **headers}, **BODY)
        assert (answer.status_code, _cors(answer)["allow-origin"]) == (status, origin)
        assert "X-Request-Id" in _cors(answer)["expose-headers"]
        assert "allow-credentials" not in _cors(answer)


def test_another_origin_gets_no_permission(shared):
    headers = {"Origin": "https://shop.example.evil.example", "X-API-Key": ALICE}
    answer = requests.post(shared.url + "/predictions/tiny", headers=headers, **BODY)
    assert (answer.status_code, _cors(answer), answer.headers["Vary"]) == (200, {}, "Origin")
    preflight = requests.options(shared.url + "/predictions/tiny", headers={**headers, **PREFLIGHT}, timeout=TIMEOUT)
    assert (preflight.status_code, _cors(preflight)) == (405, {})


def test_a_star_allows_every_origin(tiny_service, tmp_path):
    with gateways.running(tiny_service.settings, tmp_path, cors_origins=("*",)) as gateway:
        for origin in (SHOP, "null"):
            answer = requests.post(gateway.url + "/predictions/tiny", headers={"Origin": origin}, **BODY)
            assert _cors(answer)["allow-origin"] == "*"
        assert _cors(requests.get(gateway.url + "/readyz", timeout=TIMEOUT)) == {}


def test_without_the_setting_there_is_no_permission(tiny_service):
    url = f"{tiny_service.gateway}/predictions/tiny"
    answer = requests.options(url, headers={"Origin": SHOP, **PREFLIGHT}, timeout=TIMEOUT)
    assert (answer.status_code, _cors(answer), "Vary" in answer.headers) == (405, {}, False)


# --- Keys ---


@pytest.fixture(scope="module")
def guarded(tiny_service, keys, tmp_path_factory):
    with gateways.running(tiny_service.settings, tmp_path_factory.mktemp("guarded"), api_keys=keys) as gateway:
        yield gateway


def closed_paths():
    for path, methods in routes().items():
        if path not in OPEN:
            for method in methods:
                yield method, path.replace("{model}", "tiny").replace("{version}", "1.0")


@pytest.mark.parametrize(("method", "path"), list(closed_paths()))
def test_paths_of_models_require_a_key(guarded, method, path):
    def ask(**headers):
        return requests.request(method, guarded.url + path, headers=headers, **BODY)

    missing = ask()
    assert (missing.status_code, missing.json().keys()) == (401, PROBLEM)
    assert missing.json()["type"] == "urn:problem-type:fashion-serve:unauthenticated"
    assert missing.headers["WWW-Authenticate"] == 'Bearer realm="fashion-serve"'
    wrong = ask(**{"X-API-Key": ALICE[:-1] + "0"})
    assert (wrong.status_code, wrong.json().keys()) == (403, PROBLEM)
    assert wrong.json()["type"] == "urn:problem-type:fashion-serve:forbidden"
    assert "WWW-Authenticate" not in wrong.headers
    for headers in ({"X-API-Key": ALICE}, {"Authorization": f"Bearer {BOB}"}, {"Authorization": f"bearer  {ALICE}"}):
        assert ask(**headers).status_code not in (401, 403)


@pytest.mark.parametrize("path", OPEN)
def test_pages_and_health_require_no_key(guarded, path):
    assert requests.get(guarded.url + path, timeout=TIMEOUT).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-API-Key": ""}, 401),
        ({"Authorization": "Basic YTpi"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": f"Bearer {ALICE} {BOB}"}, 401),
        ({"Authorization": ALICE}, 401),
        ({"X-API-Key": "alice"}, 403),
        ({"X-API-Key": "default"}, 403),
        ({"X-API-Key": "anybody"}, 403),
        ({"X-API-Key": ALICE + "0"}, 403),
        ({"X-API-Key": ALICE[:-1]}, 403),
        ({"X-API-Key": "0", "Authorization": f"Bearer {ALICE}"}, 403),
    ],
)
def test_malformed_and_unknown_keys_are_refused(guarded, headers, status):
    answer = requests.post(guarded.url + "/predictions/tiny", headers=headers, **BODY)
    assert answer.status_code == status


def test_chunked_requests_require_a_key_too(guarded):
    for key, status in ((None, 401), ("0", 403), (ALICE, 200)):
        answer = requests.post(
            guarded.url + "/predictions/tiny",
            data=iter([b"[1, ", b"2, 3]"]),
            headers={"Content-Type": "application/json", "X-API-Key": key},
            timeout=TIMEOUT,
        )
        assert answer.status_code == status


def test_callers_are_logged_by_name_and_keys_not_at_all(guarded):
    for key, name in ((ALICE, "alice"), (BOB.lower(), "bob"), (None, "nobody"), ("f" * 64, "")):
        answer = requests.post(guarded.url + "/predictions/tiny", headers={"X-API-Key": key}, **BODY)
        assert guarded.access(answer.headers["X-Request-Id"])["caller"] == name
    logged = (guarded.logs / "access.log").read_text() + (guarded.logs / "gateway.log").read_text()
    assert not any(key.lower() in logged.lower() for key in (ALICE, BOB))


# --- TLS ---


@pytest.fixture(scope="module")
def encrypted(tiny_service, certificates, tmp_path_factory):
    with gateways.running(tiny_service.settings, tmp_path_factory.mktemp("tls"), certificates=certificates) as gateway:
        yield gateway


def test_tls(encrypted, certificates):
    trusted: dict[str, Any] = {"verify": str(certificates / "ca.crt"), "timeout": TIMEOUT}
    assert encrypted.url.startswith("https://")
    answer = requests.post(encrypted.url + "/predictions/tiny", json=[1, 2, 3], **trusted)
    assert answer.status_code == 200
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert requests.get(encrypted.url.replace(HOST, "localhost") + "/readyz", **trusted).status_code == 200
    chunked = requests.post(encrypted.url + "/predictions/tiny", data=iter([b"[1,", b"2,3]"]), **trusted)
    assert chunked.json() == answer.json()


def test_http_2_over_tls(encrypted, certificates):
    context = ssl.create_default_context(cafile=certificates / "ca.crt")
    with httpx.Client(http2=True, verify=context, trust_env=False) as client:
        answer = client.post(encrypted.url + "/predictions/tiny", json=[1, 2, 3], timeout=TIMEOUT)
    assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)


def test_a_certificate_of_an_unknown_authority_is_refused(encrypted):
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(encrypted.url + "/healthz", timeout=TIMEOUT)


def test_plain_http_on_the_tls_port_gets_a_problem(encrypted):
    answer = requests.get(f"http://{HOST}:{encrypted.port}/healthz", timeout=TIMEOUT)
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_tls_1_2_and_1_3_are_accepted_and_1_1_is_not(encrypted, certificates, version):
    context = ssl.create_default_context(cafile=certificates / "ca.crt")
    # This client accepts old versions and weak ciphers, so the server alone decides.
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version

    def handshake():
        plain = socket.create_connection((HOST, encrypted.port), timeout=TIMEOUT)
        with context.wrap_socket(plain, server_hostname="localhost") as connection:
            return connection.version()

    if version is ssl.TLSVersion.TLSv1_1:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            handshake()
    else:
        assert handshake() == version.name.replace("_", ".")


def test_certificates_are_not_overwritten(certificates):
    before = (certificates / "gateway.crt").read_bytes()
    repeated = subprocess.run([ROOT / "serving" / "gateway" / "certs.sh", certificates], capture_output=True, text=True)
    assert repeated.returncode == 1
    assert repeated.stderr.startswith(f"error: {certificates}/gateway.crt exists already")
    assert (certificates / "gateway.crt").read_bytes() == before
    for name in ("ca.key", "gateway.key"):
        assert (certificates / name).stat().st_mode & 0o077 == 0


# --- Rate ---


def test_more_than_the_rate_is_refused(tiny_service, keys, tmp_path):
    with gateways.running(tiny_service.settings, tmp_path, api_keys=keys, rate_limit=5) as gateway:

        def ask(key, path="/predictions/tiny", method="POST"):
            return requests.request(method, gateway.url + path, headers={"X-API-Key": key}, **BODY)

        answers = [ask(ALICE) for _ in range(60)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert answers[0].status_code == 200
        assert refused
        assert {answer.status_code for answer in answers} == {200, 429}
        assert refused[0].headers["Retry-After"] == "1"
        assert refused[0].json().keys() == PROBLEM
        assert refused[0].json()["type"] == "urn:problem-type:fashion-serve:rate-limited"
        # Each caller has its own rate. Pages and the gateway's own health check have no limit.
        assert ask(BOB).status_code == 200
        assert {requests.get(gateway.url + "/healthz", timeout=TIMEOUT).status_code for _ in range(30)} == {200}
        assert {requests.get(gateway.url + "/", timeout=TIMEOUT).status_code for _ in range(30)} == {200}
        assert wait_until(lambda: ask(ALICE).status_code == 200, 10)


def test_without_keys_the_rate_is_per_address(tiny_service, tmp_path):
    with gateways.running(tiny_service.settings, tmp_path, rate_limit=5) as gateway:
        for chunked in (False, True):
            statuses = set()
            for _ in range(30):
                body: dict[str, Any] = {"data": iter([b"[1, 2, 3]"])} if chunked else {"json": [1, 2, 3]}
                statuses.add(requests.post(gateway.url + "/predictions/tiny", timeout=TIMEOUT, **body).status_code)
            assert 429 in statuses
            assert statuses <= {200, 429}


def test_without_a_rate_limit_no_request_is_refused(tiny_service):
    with requests.Session() as session:
        assert {session.get(tiny_service.gateway + "/v2", timeout=TIMEOUT).status_code for _ in range(300)} == {200}


# --- gRPC ---


def check(channel, **metadata):
    """The status code of a call to gRPC's health service."""
    try:
        stub = health_pb2_grpc.HealthStub(channel)
        stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT, metadata=list(metadata.items()))
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_grpc_asks_for_a_key(guarded):
    with grpc.insecure_channel(guarded.settings.grpc.address) as channel:
        assert check(channel) is grpc.StatusCode.UNAUTHENTICATED
        assert check(channel, authorization=f"Bearer {ALICE[:-1]}0") is grpc.StatusCode.PERMISSION_DENIED
        assert check(channel, authorization=f"Bearer {ALICE}") is grpc.StatusCode.OK


def test_grpc_speaks_tls(encrypted, certificates):
    credentials = grpc.ssl_channel_credentials((certificates / "ca.crt").read_bytes())
    with grpc.secure_channel(encrypted.settings.grpc.address, credentials) as channel:
        assert check(channel) is grpc.StatusCode.OK
    with grpc.insecure_channel(encrypted.settings.grpc.address) as channel:
        assert check(channel) is grpc.StatusCode.UNAVAILABLE


def test_grpc_has_the_rate_limit_of_http(tiny_service, tmp_path):
    with gateways.running(tiny_service.settings, tmp_path, rate_limit=5) as gateway:
        with grpc.insecure_channel(gateway.settings.grpc.address) as channel:
            codes = [check(channel) for _ in range(30)]
        assert codes[0] is grpc.StatusCode.OK
        assert set(codes[1:]) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}


# --- Addresses ---


def test_a_service_on_an_ipv6_address(tmp_path):
    packing.pack(tmp_path / "model_store")
    place = make_place(tmp_path, tmp_path / "model_store", FASHION_LISTEN="::1")
    try:
        place.start()
        assert place.gateway.startswith("http://[::1]:")
        assert requests.post(place.gateway + "/predictions/tiny", **BODY).status_code == 200
        with grpc.insecure_channel(place.grpc) as channel:
            assert check(channel) is grpc.StatusCode.OK
        status = place.settings.gateway_status.url
        assert requests.get(status + "/readyz", timeout=TIMEOUT).json() == {"ready": True}
        # The front door also reaches nginx at this address.
        assert "\nnginx_up 1" in requests.get(status + "/metrics", timeout=TIMEOUT).text
        assert "\nQueueTime_count" in requests.get(status + "/metrics/torchserve", timeout=TIMEOUT).text
        assert reload.apply(place.settings, {"tiny": Live("1.0", canary=Canary("2.0", 100))}, ())
        assert requests.post(place.gateway + "/predictions/tiny", **BODY).status_code == 404
        addresses = {
            connection.laddr.ip.removeprefix("::ffff:")
            for process in place.processes()
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert addresses == {HOST}
    finally:
        place.end()


# --- Canary ---


def _share(folder, *canaries):
    """Write the live configuration of the gateway with this folder: canaries of ``tiny`` and other models."""
    state = {model: Live("1.0", canary=Canary(version, percent)) for model, version, percent in canaries}
    live_config.write(folder / "gateway" / "live" / "live.conf", live_config.render(state, (), {}))


def test_the_canary_gets_its_share(tiny_service, tmp_path):
    # Version 2.0 does not exist, so each request to it shows as a 404.
    _share(tmp_path / "run", ("another", "3.0", 100), ("tiny", "2.0", 30))
    with gateways.running(tiny_service.settings, tmp_path) as gateway, requests.Session() as session:

        def ask(path):
            return session.post(gateway.url + path, **BODY).status_code

        statuses = [ask("/predictions/tiny") for _ in range(400)]
        assert set(statuses) == {200, 404}
        # 120 on average; outside of 60 to 180 once in some 10^10 runs.
        assert 60 < statuses.count(404) < 180
        assert {ask("/predictions/tiny/1.0") for _ in range(40)} == {200}
        assert {ask("/v1/models/tiny:predict") for _ in range(60)} == {200, 404}


def test_the_answer_names_the_canarys_version(tiny_service, tmp_path):
    _share(tmp_path / "run", ("tiny", "1.0", 100))
    with gateways.running(tiny_service.settings, tmp_path) as gateway, requests.Session() as session:
        for path in ("/predictions/tiny", "/explanations/tiny"):
            answer = session.post(gateway.url + path, **BODY)
            assert (answer.status_code, answer.headers["X-Model-Version"]) == (200, "1.0")
            assert gateway.access(answer.headers["X-Request-Id"])["version"] == "1.0"


# --- All options ---


@pytest.mark.parametrize("name", ["plain", "keys", "certificates", "rate", "canary", "everything"])
def test_nginx_accepts_the_configuration_without_a_warning(tiny_service, keys, certificates, tmp_path, name):
    changes: dict[str, dict[str, Any]] = {
        "keys": {"api_keys": keys},
        "certificates": {"certificates": certificates},
        "rate": {"rate_limit": 100},
        "canary": {},
        "plain": {},
    }
    if name in ("canary", "everything"):
        _share(tmp_path, ("tiny", "2.0", 0.01), ("other", "1.0", 100))
    changes["everything"] = {key: value for change in changes.values() for key, value in change.items()}
    program = nginx_binary.find(settings.read().nginx)
    changed = dataclasses.replace(tiny_service.settings, run=tmp_path, logs=tmp_path, **changes[name])
    command = gateway_config.command(program, gateway_config.write_config(changed, program, tmp_path))
    result = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "[warn]" not in result.stderr
    assert "[error]" not in result.stderr
