"""How the gateway changes requests and answers: forms, queries, headers, problems, ids, compression, connections."""

from __future__ import annotations

import gzip
import io
import json
import re
import subprocess
import zlib

import numpy as np
import pytest
import requests
import yaml
from urllib3.filepost import encode_multipart_formdata

from handlers import limits
from serving.settings import ROOT
from tests.support.gateways import OPENAPI, PROBLEM, routes

EXAMPLE = ROOT / "examples" / "ankle_boot.png"
BOOT = EXAMPLE.read_bytes()
ID = "123e4567-e89b-12d3-a456-426614174000"
JSON = {"Content-Type": "application/json"}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIMEOUT = 60


def post(gateway, path="/predictions/fashion_mlp", body=BOOT, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(gateway.url + path, data=body, headers=headers, timeout=TIMEOUT)


def assert_problem(answer, status, kind, detail=""):
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), answer.text
    problem = answer.json()
    assert problem.keys() == PROBLEM
    assert (problem["status"], problem["type"]) == (status, f"urn:problem-type:fashion-serve:{kind}")
    assert detail in problem["detail"]
    assert problem["error"] == problem["detail"]
    assert problem["instance"] == "urn:uuid:" + answer.headers["X-Request-Id"]


def assert_same(prediction, expected):
    """Both predictions agree; the last digits depend on the batch."""
    assert prediction["label"] == expected["label"]
    assert prediction["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)


# --- Requests ---


def test_answers_are_those_of_torchserve(gateway, service):
    direct = requests.post(service.inference + "/predictions/fashion_mlp", data=BOOT, timeout=TIMEOUT)
    for path in ("/predictions/fashion_mlp", "/predictions/fashion_mlp/1.0"):
        assert_same(post(gateway, path, Content_Type="image/png").json(), direct.json())


def test_several_files_of_one_name_are_answered_in_order(gateway):
    blank = io.BytesIO()
    np.save(blank, np.zeros((28, 28), np.uint8))
    files = [("image", ("a.png", BOOT, "image/png")), ("image", ("b.npy", blank.getvalue(), "application/x-npy"))]
    expected = [post(gateway, body=body, Content_Type=kind).json() for _, (_, body, kind) in files]
    assert expected[0] != expected[1]
    for order in (1, -1):
        answer = requests.post(gateway.url + "/predictions/fashion_mlp", files=files[::order], timeout=TIMEOUT)
        for prediction, single in zip(answer.json(), expected[::order], strict=True):
            assert_same(prediction, single)


def test_curls_ways_of_sending(gateway):
    def curl(*arguments):
        command = ["curl", "--silent", "--show-error", "--max-time", str(TIMEOUT), "--noproxy", "*", *arguments]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    url = gateway.url + "/predictions/"
    single = curl(f"{url}fashion_mlp", "--form", f"image=@{EXAMPLE}")
    assert single["label"] == "Ankle boot"
    assert curl(f"{url}fashion_mlp", "--data-binary", f"@{EXAMPLE}") == single
    for path in ("fashion_mlp", "fashion_mlp/1.0"):
        assert curl(f"{url}{path}", "--upload-file", str(EXAMPLE)) == single
    for prediction in curl(f"{url}fashion_mlp", "--form", f"a=@{EXAMPLE}", "--form", f"a=@{EXAMPLE}"):
        assert_same(prediction, single)
    # -d sends a form's content type. TorchServe would decode the + and the = of the JSON as in a form.
    (prediction,) = curl(f"{url}blobs_mlp", "--data", '{"instances": [[1e+0, 2, 3, 4]], "a": "b=c"}')["predictions"]
    assert_same(prediction, post(gateway, "/predictions/blobs_mlp", b"[1, 2, 3, 4]", **JSON).json())


def test_a_body_in_chunks(gateway):
    whole = post(gateway, Content_Type="image/png")
    pieces = post(gateway, "/predictions/fashion_mlp?top_k=2", iter([BOOT[:100], BOOT[100:]]), Content_Type="image/png")
    assert (len(pieces.json()["probabilities"]), len(whole.json()["probabilities"])) == (2, 10)
    assert pieces.json()["probability"] == whole.json()["probability"]
    form = {"Content-Type": "multipart/form-data; boundary=x", "Accept": "application/octet-stream"}
    answer = post(gateway, body=iter([b"--x\r\n\r\n", BOOT, b"\r\n--x--"]), **form)
    assert np.frombuffer(answer.content, "<f4").shape == (10,)
    # Problems of the handler, with statuses that nginx's own problems have too.
    assert_problem(post(gateway, body=iter([BOOT[:100]]), Content_Type="image/png"), 400, "malformed", "PNG")
    assert_problem(post(gateway, "/predictions/nosuch", iter([b"x"])), 404, "not-found", "no model nosuch")
    pixels = iter([bytes(784 * (limits.EXAMPLES + 1))])
    assert_problem(post(gateway, body=pixels, Content_Type="application/octet-stream"), 413, "too-large", "10001")


def _deflate(body, bits):
    packer = zlib.compressobj(wbits=bits)
    return packer.compress(body) + packer.flush()


COMPRESSED = {
    "gzip": ("gzip", gzip.compress(BOOT)),
    "x-gzip": ("X-GZIP", gzip.compress(BOOT)),
    "two members": ("gzip", gzip.compress(BOOT[:100]) + gzip.compress(BOOT[100:])),
    "deflate": ("deflate", zlib.compress(BOOT)),
    "deflate without zlib's header": ("deflate", _deflate(BOOT, -15)),
    "identity": ("identity", BOOT),
}


@pytest.mark.parametrize(("encoding", "body"), COMPRESSED.values(), ids=COMPRESSED)
def test_compressed_bodies(gateway, encoding, body):
    expected = post(gateway, Content_Type="image/png").json()
    for sent in (body, iter([body[:100], body[100:]])):
        assert_same(post(gateway, body=sent, Content_Type="image/png", Content_Encoding=encoding).json(), expected)


def test_compressed_bodies_of_every_route(gateway):
    compressed, headers = gzip.compress(b'{"instances": [[1, 2, 3, 4]]}'), {**JSON, "Content-Encoding": "gzip"}
    for path in ("/v1/models/blobs_mlp:predict", "/v1/models/blobs_mlp:explain", "/predictions/blobs_mlp/1.0"):
        assert post(gateway, path, compressed, **headers).status_code == 200
    form, content_type = encode_multipart_formdata({"a": ("a.png", BOOT), "b": ("b.png", BOOT)})
    answer = post(gateway, body=gzip.compress(form), Content_Type=content_type, Content_Encoding="gzip")
    assert len(answer.json()) == 2


def test_wrong_compressed_bodies_are_refused(gateway):
    compressed = gzip.compress(BOOT)
    for body, detail in (
        (compressed[:-9], "truncated"),
        (BOOT, "not in the encoding gzip"),
        (compressed + b"x", "gzip"),
    ):
        answer = post(gateway, body=body, Content_Type="image/png", Content_Encoding="gzip")
        assert_problem(answer, 400, "malformed", detail)
    # 68 MB, of 66 kB.
    bomb = gzip.compress(bytes(limits.REQUEST_BYTES + 1))
    answer = post(gateway, body=bomb, Content_Type="application/octet-stream", Content_Encoding="gzip")
    assert_problem(answer, 413, "too-large", "once decompressed")
    assert_problem(post(gateway, body=compressed, Content_Encoding="br"), 415, "unsupported-format", "gzip, deflate")


def test_the_query_reaches_the_handler(gateway):
    one = post(gateway, "/predictions/fashion_mlp?top_k=1&prepare=none&picture=true", Content_Type="image/png").json()
    assert list(one["probabilities"]) == ["Ankle boot"]
    assert one["picture"].startswith("iVBOR")
    assert_problem(post(gateway, "/predictions/fashion_mlp?top_k=0"), 422, "unprocessable", "top_k")
    by_label = post(gateway, "/explanations/fashion_mlp?target=Ankle%20boot").json()
    assert by_label["target"] == 9
    assert (
        post(gateway, "/v1/models/blobs_mlp:explain?target=1", b'{"instances": [[1, 2, 3, 4]]}', **JSON).json()[
            "explanations"
        ][0]["target"]
        == 1
    )


def test_headers_that_control_a_handler_do_not_reach_it(gateway):
    expected = post(gateway, Content_Type="image/png").json()
    for name in ("describe", "explain", "url_path", "url-path", "X-Query", "X-Content-Type", "Describe", "EXPLAIN"):
        for value in ("True", "top_k=1", "application/json"):
            answer = requests.post(
                gateway.url + "/predictions/fashion_mlp",
                data=BOOT,
                headers={"Content-Type": "image/png", name: value},
                timeout=TIMEOUT,
            )
            assert_same(answer.json(), expected)


def test_every_described_example_is_answered(gateway):
    sent = 0
    for path, methods in routes().items():
        if "POST" not in methods:
            continue
        body = OPENAPI["paths"][path]["post"]["requestBody"]
        if "$ref" in body:
            body = OPENAPI["components"]["requestBodies"][body["$ref"].rpartition("/")[2]]
        for example in body["content"]["application/json"]["examples"].values():
            name = example.get("$ref", "").rpartition("/")[2]
            described = OPENAPI["components"]["examples"][name] if name else example
            filled = path.replace("{model}", described.get("x-model", "")).replace("{version}", "1.0")
            answer = post(gateway, filled, json.dumps(described["value"]), **JSON)
            assert answer.status_code == 200, (filled, described, answer.text)
            sent += 1
    assert sent > 20


def test_inference_with_binary_tensors(gateway):
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": "image",
                    "shape": [2, 28, 28],
                    "datatype": "UINT8",
                    "parameters": {"binary_data_size": 1568},
                }
            ],
            "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
        }
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"}
    for body in (header + bytes(1568), iter([header, bytes(1568)])):
        answer = post(gateway, "/v2/models/fashion_mlp/versions/1.0/infer", body, **headers)
        length = int(answer.headers["Inference-Header-Content-Length"])
        assert json.loads(answer.content[:length])["outputs"][0]["shape"] == [2, 10]
        assert len(answer.content) == length + 80


# --- Answers ---


def test_headers_of_an_answer(gateway):
    headers = post(gateway, Content_Type="image/png").headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Server"] == "nginx"
    assert headers.keys().isdisjoint({"Pragma", "Expires", "Allow", "Retry-After", "WWW-Authenticate"})
    assert "Strict-Transport-Security" not in headers
    # TorchServe's own id would be joined to it, in front.
    assert UUID.fullmatch(headers["X-Request-Id"])
    page = requests.get(gateway.url, timeout=TIMEOUT).headers
    assert page["Cache-Control"] == "no-cache"
    assert page["Content-Security-Policy"].startswith("default-src 'self'; style-src 'self'; img-src 'self' blob: ")
    assert "unsafe" not in page["Content-Security-Policy"]


def test_the_version_that_answered(gateway):
    assert post(gateway, "/predictions/fashion_mlp/1.0").headers["X-Model-Version"] == "1.0"
    assert post(gateway, "/predictions/fashion_mlp").headers["X-Model-Version"] == "1.0"
    assert post(gateway, "/v2/models/fashion_mlp/versions/1.0/infer", b"{}").status_code == 422
    assert "X-Model-Version" not in post(gateway, "/predictions/fashion_mlp/9.9").headers


def test_large_json_is_compressed_for_clients_that_accept_gzip(gateway):
    path = gateway.url + "/predictions/fashion_mlp"
    headers = {"Content-Type": "application/octet-stream", "Accept-Encoding": "gzip"}
    with requests.post(path, data=bytes(784 * 100), headers=headers, stream=True, timeout=TIMEOUT) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert len(json.loads(gzip.decompress(answer.raw.read(decode_content=False)))) == 100
    headers["Accept-Encoding"] = "identity"
    assert (
        "Content-Encoding" not in requests.post(path, data=bytes(784 * 100), headers=headers, timeout=TIMEOUT).headers
    )


def test_a_long_answer_arrives_whole(gateway):
    answer = post(gateway, body=bytes(784 * limits.EXAMPLES), Content_Type="application/octet-stream")
    assert len(answer.json()) == limits.EXAMPLES


# --- Problems ---


def test_problems_of_the_handler_pass(gateway):
    assert_problem(post(gateway, body=BOOT[:100], Content_Type="image/png"), 400, "malformed", "PNG")
    assert_problem(post(gateway, Accept="text/html"), 406, "not-acceptable", "text/html")
    pixels = bytes(784 * (limits.EXAMPLES + 1))
    assert_problem(post(gateway, body=pixels, Content_Type="application/octet-stream"), 413, "too-large", "10001")
    assert_problem(post(gateway, body=b"OggS", Content_Type="audio/ogg"), 415, "unsupported-format", "audio/ogg")
    assert_problem(post(gateway, body=b"[1, 2]", **JSON), 422, "unprocessable")
    assert_problem(post(gateway, body=b"--x\r\nA: b", Content_Type="multipart/form-data; boundary=x"), 400, "malformed")


def test_errors_of_torchserve_become_problems(gateway):
    assert_problem(post(gateway, "/predictions/nosuch"), 404, "not-found", "no model nosuch")
    assert_problem(post(gateway, "/predictions/nosuch/2.0"), 404, "not-found", "no model nosuch with version 2.0")
    assert_problem(
        post(gateway, "/predictions/fashion_mlp/9.9"), 404, "not-found", "no model fashion_mlp with version 9.9"
    )
    assert_problem(post(gateway, "/v2/models/nosuch/infer", b"{}"), 404, "not-found", "no model nosuch")
    for path in ("/v1/models/nosuch", "/v2/models/nosuch", "/v2/models/fashion_mlp/versions/9.9/ready"):
        assert_problem(requests.get(gateway.url + path, timeout=TIMEOUT), 404, "not-found")


def test_errors_of_nginx_become_problems(gateway):
    assert_problem(post(gateway, "/nosuch"), 404, "not-found", "no such path")
    assert_problem(post(gateway, Content_Encoding="br"), 415, "unsupported-format", "Content-Encoding")
    assert_problem(post(gateway, Accept="a" * 6500), 431, "too-large", "too long")
    assert_problem(post(gateway, "/predictions/fashion_mlp?" + "a" * 7000), 431, "too-large", "too long")
    assert_problem(post(gateway, "/predictions/fashion_mlp?" + "a" * 9000), 414, "too-large", "8192")
    assert_problem(post(gateway, Cookie="a" * 9000), 431, "too-large")
    assert_problem(requests.get(gateway.url, headers={"If-Match": '"x"'}, timeout=TIMEOUT), 412, "condition-failed")


# Bytes that the library requests cannot send. The gateway answers each with this status and closes the connection.
RAW = {
    "noise": (b"\x00\x01\x02\r\n\r\n", 400),
    "no version": (b"GET\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "unknown version": (b"GET / HTTP/3.7\r\nHost: x\r\n\r\n", 505),
    "unknown transfer encoding": (b"POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    "two lengths": (b"POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "a length and chunks": (
        b"POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "negative length": (b"POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    "broken chunk": (b"POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "long body": (b"POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 67108865\r\n\r\n", 413),
    "long chunk": (b"POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4000001\r\nabc", 413),
    "control character": (
        b"POST {} HTTP/1.1\r\nHost: x\r\nAccept: a\x01b\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
        400,
    ),
    "zero in the path": (b"GET /v2/models/a%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "path above the root": (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 400),
}


@pytest.mark.parametrize(("sent", "status"), RAW.values(), ids=RAW)
def test_invalid_http_gets_a_problem_too(gateway, sent, status):
    received = gateway.converse(sent.replace(b"{}", b"/predictions/fashion_mlp"))
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), received
    assert b"\r\nContent-Type: application/problem+json\r\n" in head
    problem = json.loads(body)
    assert (problem.keys(), problem["status"]) == (PROBLEM, status)
    assert problem["instance"].removeprefix("urn:uuid:").encode() in head


def test_no_answer_reveals_software_versions(gateway):
    missing = requests.get(gateway.url + "/nosuch", timeout=TIMEOUT)
    for answer in (missing, post(gateway), post(gateway, "/predictions/nosuch"), requests.get(gateway.url + "/v2")):
        assert answer.headers["Server"] == "nginx"
    received = gateway.converse(b"GET /nosuch HTTP/1.0\r\n\r\n") + gateway.converse(b"GET\r\n\r\n")
    assert b"nginx/" not in received
    assert b"<html" not in received


# --- Request ids ---


def test_a_clients_id_names_its_request(gateway):
    good = post(gateway, "/predictions/fashion_mlp?top_k=1", X_Request_Id=ID.upper())
    assert good.headers["X-Request-Id"] == ID.upper()
    assert_problem(post(gateway, "/predictions/nosuch", X_Request_Id=ID), 404, "not-found")
    bad = post(gateway, body=BOOT[:100], Content_Type="image/png", X_Request_Id=ID)
    assert bad.headers["X-Request-Id"] == ID
    assert_problem(bad, 400, "malformed")
    assert_problem(
        requests.get(gateway.url + "/v1/models/no", headers={"X-Request-Id": ID}, timeout=TIMEOUT), 404, "not-found"
    )


@pytest.mark.parametrize("request_id", ["", "7", ID + "0", ID.replace("-", ""), '"><script>'])
def test_a_request_id_that_is_not_a_uuid_is_replaced(gateway, request_id):
    answer = post(gateway, "/predictions/nosuch", X_Request_Id=request_id)
    assert_problem(answer, 404, "not-found")
    assert UUID.fullmatch(answer.headers["X-Request-Id"])


def test_requests_are_logged_as_json(gateway):
    answer = post(gateway, "/predictions/fashion_mlp/1.0?top_k=2", Content_Type="image/png", User_Agent='a "b"\n'[:5])
    entry = gateway.access(answer.headers["X-Request-Id"])
    assert (entry["status"], entry["upstream_status"]) == (200, "200")
    assert entry["request"] == "POST /predictions/fashion_mlp/1.0?top_k=2 HTTP/1.1"
    assert (entry["model"], entry["version"], entry["caller"]) == ("fashion_mlp", "1.0", "anybody")
    assert (entry["client"], entry["agent"]) == ("127.0.0.1", 'a "b"')
    # nginx rounds both to milliseconds.
    assert 0 < float(entry["upstream_seconds"]) < entry["seconds"] + 0.002
    assert entry["bytes_in"] > len(BOOT)
    refused = gateway.access(post(gateway, "/nosuch").headers["X-Request-Id"])
    assert (refused["status"], refused["upstream_status"]) == (404, "")


# --- Connections ---


def test_a_connection_is_kept(gateway):
    with requests.Session() as session:
        for path, status in (("/v2", 200), ("/nosuch", 404), ("/predictions/nosuch", 405), ("/healthz", 200)):
            answer = session.get(gateway.url + path, timeout=TIMEOUT)
            assert (answer.status_code, answer.headers["Connection"]) == (status, "keep-alive")


def test_pipelined_requests_are_answered_in_order(gateway):
    bodies = [json.dumps([n, 0, 0, 0]).encode() for n in range(8)]
    expected = [post(gateway, "/predictions/blobs_mlp", body, **JSON).json() for body in bodies]
    sent = b"".join(
        b"POST /predictions/blobs_mlp HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        for body in bodies
    )
    received = gateway.converse(sent, answers=len(bodies))
    assert [json.loads(body) for body in re.findall(rb"\r\n\r\n(\{.*?\}\})", received)] == expected


def test_expect_100_continue(gateway):
    head = b"POST /predictions/fashion_mlp HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
    sent = head + b"Content-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(BOOT) + BOOT
    received = gateway.converse(sent, answers=2)
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")


def test_the_served_openapi_is_the_repositorys(gateway):
    assert yaml.safe_load(requests.get(gateway.url + "/docs/openapi.yaml", timeout=TIMEOUT).content) == OPENAPI
