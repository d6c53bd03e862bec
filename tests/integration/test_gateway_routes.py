"""The gateway's route table: every path of ``openapi.yaml`` works, and no other path of TorchServe can be reached."""

from __future__ import annotations

import itertools
from urllib.parse import quote

import pytest
import requests

from tests.support.gateways import OPENAPI, PROBLEM, routes

MODEL, VERSION = "blobs_mlp", "1.0"
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
ROUTES = routes()
TIMEOUT = 60

# TorchServe's paths, from its request handlers, because `OPTIONS /` describes only some: ManagementRequestHandler,
# InferenceRequestHandler, PrometheusMetricsRequestHandler, ApiDescriptionRequestHandler, TokenAuthorizationHandler,
# WorkflowMgmtRequestHandler, WorkflowInferenceRequestHandler, OpenInferenceProtocolRequestHandler.
UPSTREAM = [
    *("/models", "/models/", "/models/{m}", "/models/{m}/", "/models/{m}/{v}", "/models/{m}/all"),
    *("/models/{m}/{v}/set-default", "/models/{m}/set-default", "/models?url=x.mar", "/models/{m}?min_worker=0"),
    *("/models/{m}/invoke", "/invocations", "/invocations?model_name={m}", "/{m}/predict", "/{m}/{v}/predict"),
    *("/api-description", "/metrics", "/metrics?name[]=x", "/token", "/token?type=management"),
    *("/workflows", "/workflows/x", "/wfpredict/x", "/predictions", "/predictions/", "/explanations"),
    *("/predictions/{m}/{v}/further", "/v1/models/{m}/{v}", "/v2/models/{m}/{v}/explain", "/v2/models"),
]
# Other spellings of such paths.
DISGUISES = [
    *("//models", "/./models", "/x/../models", "/%6dodels", "/models%2f{m}", "/models/%2e/{m}", "/MODELS"),
    *("/predictions/..%2f..%2fmodels", "/predictions/{m}/../../models", "/predictions/%2e%2e/models/{m}"),
    *(
        "/predictions/{m};/models",
        "/predictions/{m}%00",
        "/predictions/{m}%0d%0aX-A:b",
        "/predictions/{m}%3fx",
        "/-/ask/v2",
    ),
    *(
        "/-/infer",
        "/-/collect",
        "/-/problem",
        "/-/unavailable",
        "/.well-known/x",
        "/nginx.conf.template",
        "/../nginx.conf.template",
    ),
    *("/docs/../../serving/gateway.py", "/docs/%2e%2e/openapi.yaml", "/js", "/js/", "/index.html/"),
]


def path_of(template):
    return template.replace("{model}", MODEL).replace("{version}", VERSION).format(m=MODEL, v=VERSION)


def ask(gateway, method, path):
    """Send a path unchanged; requests would normalize it."""
    sent = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
    head, _, body = gateway.converse(sent).partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, body


@pytest.mark.parametrize("path", ROUTES)
def test_a_described_path_is_answered(gateway, path):
    for method in ROUTES[path]:
        body = b'{"instances": [[1, 2, 3, 4]]}' if method in ("POST", "PUT") else None
        if path.endswith(("/infer", "/explain")):
            body = b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}'
        answer = requests.request(
            method,
            gateway.url + path_of(path),
            data=body,
            headers={"Content-Type": "application/json"},
            timeout=TIMEOUT,
        )
        assert answer.status_code == 200, answer.text
        described = OPENAPI["paths"][path][method.lower()]["responses"]["200"]
        if "$ref" in described:
            described = OPENAPI["components"]["responses"][described["$ref"].rpartition("/")[2]]
        assert answer.headers["Content-Type"] in described["content"]
        if path.startswith("/v1") and method == "POST":
            assert answer.json().keys() <= {"predictions", "explanations"}


@pytest.mark.parametrize("path", ROUTES)
def test_a_described_path_accepts_no_other_method(gateway, path):
    allowed = [*ROUTES[path], *["HEAD"] * ("GET" in ROUTES[path])]
    for method in METHODS:
        if method in allowed:
            continue
        answer = requests.request(method, gateway.url + path_of(path), data=b"x", timeout=TIMEOUT)
        assert answer.status_code == 405, method
        assert answer.headers["Allow"] == ", ".join(allowed)
        if method != "HEAD":
            assert answer.json()["type"] == "urn:problem-type:fashion-serve:method-not-allowed"
            assert answer.json()["detail"] == f"this path accepts {answer.headers['Allow']}"


@pytest.mark.parametrize("path", [path for path in ROUTES if "GET" in ROUTES[path]])
def test_a_path_may_end_in_a_slash(gateway, path):
    plain, slash = (requests.get(gateway.url + path_of(path) + end, timeout=TIMEOUT) for end in ("", "/"))
    assert (slash.status_code, slash.json().keys()) == (200, plain.json().keys())


@pytest.mark.parametrize("path", [path for path in ROUTES if "GET" in ROUTES[path]])
def test_head_gets_the_headers_only(gateway, path):
    answer = requests.head(gateway.url + path_of(path), timeout=TIMEOUT)
    assert (answer.status_code, answer.headers["Content-Type"], answer.content) == (200, "application/json", b"")


def _described_by_torchserve(service):
    for port in (service.inference, service.management, service.metrics):
        described = requests.options(port + "/", timeout=TIMEOUT).json()
        for path, methods in described["paths"].items():
            for method in methods:
                yield method.upper(), path.replace("{model_name}", MODEL).replace("{model_version}", VERSION)


def _registered(service):
    names = requests.get(service.management + "/models", timeout=TIMEOUT).json()["models"]
    described = [
        requests.get(f"{service.management}/models/{n['modelName']}/all", timeout=TIMEOUT).json() for n in names
    ]
    return [
        (
            version["modelName"],
            version["modelVersion"],
            version["minWorkers"],
            version["maxWorkers"],
            version["batchSize"],
        )
        for version in itertools.chain.from_iterable(described)
    ]


def test_nothing_of_torchserves_other_apis_can_be_reached(gateway, service):
    ours = {path_of(path) for path in ROUTES}
    described = {(method, path) for method, path in _described_by_torchserve(service) if path not in ours}
    # Without management paths in TorchServe's description this test would prove nothing.
    assert {("POST", "/models"), ("DELETE", f"/models/{MODEL}"), ("GET", "/metrics"), ("OPTIONS", "/")} <= described
    written = [path_of(path) for path in (*UPSTREAM, *DISGUISES)]
    before = _registered(service)
    for method, path in sorted({*described, *itertools.product(METHODS, written)}):
        status, headers, body = ask(gateway, method, path)
        assert status in (400, 404, 405), (method, path, status)
        # Only files answer 405, because GET of a file is allowed.
        assert status != 405 or path == "/index.html/", (method, path)
        assert headers["content-type"] == "application/problem+json", (method, path)
        assert method == "HEAD" or b'"status":%d' % status in body, (method, path)
    assert _registered(service) == before


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/v2/systemsharedmemory/status",
            "/v2/cudasharedmemory/region/r/register",
            "/v2/trace/setting",
            "/v2/logging",
        ),
        *("/v2/models/{m}/trace/setting", "/v2/models/{m}/generate", "/v2/repository/models/{m}/load"),
    ],
)
def test_tritons_other_paths_do_not_exist(gateway, path):
    for method in ("GET", "POST"):
        answer = requests.request(method, gateway.url + path_of(path), data=b"{}", timeout=TIMEOUT)
        assert (answer.status_code, answer.json()["status"]) == (404, 404)


def test_the_index_of_a_chunked_request_has_ready_versions(gateway):
    answer = requests.post(gateway.url + "/v2/repository/index", data=iter([b'{"ready"', b": true}"]), timeout=TIMEOUT)
    assert {"name": MODEL, "version": VERSION, "state": "READY", "reason": ""} in answer.json()
    answer = requests.post(gateway.url + "/v2/repository/index", data=b"{", timeout=TIMEOUT)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:problem-type:fashion-serve:malformed")


def test_disguised_paths_lead_where_they_say(gateway):
    for path in ("//v2", "/./v2", "/x/../v2", "/%76%32"):
        status, _, body = ask(gateway, "GET", path)
        assert status == 200, path
        assert b'"name":"fashion-serve"' in body


@pytest.mark.parametrize("name", ["a" * 129, "ä", "a b", "-a", "...", "a:b", "a$b", 'a"b', "a|b"])
def test_an_invalid_model_name_is_404(gateway, name):
    for path in ("/predictions/{}", "/explanations/{}", "/v1/models/{}:predict", "/v2/models/{}/infer"):
        answer = requests.post(gateway.url + path.format(quote(name, "")), data=b"x", timeout=TIMEOUT)
        assert (answer.status_code, answer.json().keys()) == (404, PROBLEM), path


def test_pages(gateway):
    page = requests.get(gateway.url + "/", timeout=TIMEOUT)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert requests.get(gateway.url + "/index.html", timeout=TIMEOUT).content == page.content
    assert requests.post(gateway.url + "/", timeout=TIMEOUT).status_code == 405
    revalidated = requests.get(gateway.url + "/", headers={"If-None-Match": page.headers["ETag"]}, timeout=TIMEOUT)
    assert revalidated.status_code == 304
    docs = requests.get(gateway.url + "/docs", timeout=TIMEOUT)
    assert docs.url == gateway.url + "/docs/"
    assert docs.headers["Content-Type"] == "text/html; charset=utf-8"
    for name, content_type in (
        ("swagger-ui.css", "text/css; charset=utf-8"),
        ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("start.js", "text/javascript; charset=utf-8"),
        ("openapi.yaml", "application/yaml"),
    ):
        answer = requests.get(f"{gateway.url}/docs/{name}", timeout=TIMEOUT)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, content_type)
