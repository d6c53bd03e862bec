"""General HTTP clients: requests, httpx and curl, with every format of a body."""

import base64
import json
import subprocess

import httpx
import numpy as np
import pytest
import requests

from serving.settings import ROOT
from tests.support import image_files, npy_files
from tests.support.reference import PIXELS, TIMEOUT, VERSION, assert_same, labels

EXAMPLE = ROOT / "examples/ankle_boot.png"
PROBLEM = {"type", "title", "status", "detail", "instance"}


def with_requests(url, body, content_type):
    answer = requests.post(url, data=body, headers={"Content-Type": content_type}, timeout=TIMEOUT)
    return answer.status_code, answer.headers["Content-Type"], answer.content


def with_httpx(url, body, content_type):
    answer = httpx.post(url, content=body, headers={"Content-Type": content_type}, timeout=TIMEOUT, trust_env=False)
    return answer.status_code, answer.headers["Content-Type"], answer.content


def with_curl(url, body, content_type):
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", str(TIMEOUT), "--data-binary", "@-"]
    command += ["--header", f"Content-Type: {content_type}", "--write-out", "\n%{http_code} %{content_type}", url]
    content, _, trailer = subprocess.run(command, input=body, capture_output=True, check=True).stdout.rpartition(b"\n")
    status, _, answer_type = trailer.decode().partition(" ")
    return int(status), answer_type, content


@pytest.fixture(params=[with_requests, with_httpx, with_curl], ids=["requests", "httpx", "curl"])
def post(request):
    return request.param


FORMATS = {
    "raw": ("application/octet-stream", PIXELS.tobytes()),
    "npy": ("application/x-npy", npy_files.save(PIXELS)),
    "npy of fractions": ("application/x-npy", npy_files.save((PIXELS / 255).astype(np.float32))),
    "JSON images": ("application/json", json.dumps(PIXELS.tolist()).encode()),
    "JSON rows": ("application/json", json.dumps(PIXELS.reshape(5, 784).tolist()).encode()),
    "instances": ("application/json", json.dumps({"instances": PIXELS.tolist()}).encode()),
    "base64": (
        "application/json",
        json.dumps([base64.b64encode(image_files.save(each)).decode() for each in PIXELS]).encode(),
    ),
}


@pytest.mark.parametrize(("content_type", "body"), FORMATS.values(), ids=FORMATS)
def test_predictions_of_several_images(post, service, model, expected, content_type, body):
    status, answer_type, content = post(f"{service.http}/predictions/{model}/{VERSION}", body, content_type)
    assert (status, answer_type.partition(";")[0]) == (200, "application/json"), content
    answer = json.loads(content)
    predictions = answer["predictions"] if isinstance(answer, dict) else answer
    assert [each["label"] for each in predictions] == labels(expected)
    assert_same([list(each["probabilities"].values()) for each in predictions], expected)


def test_a_prediction_of_one_image(post, service, model, expected):
    status, _, content = post(f"{service.http}/predictions/{model}", EXAMPLE.read_bytes(), "image/png")
    assert status == 200, content
    prediction = json.loads(content)
    assert prediction["class"] == expected[0].argmax()
    assert prediction["probability"] == pytest.approx(expected[0].max(), abs=1e-5)


def test_several_files_in_one_form(service, model, expected):
    files = [("images", (f"{n}.png", image_files.save(image), "image/png")) for n, image in enumerate(PIXELS)]
    for client in (requests, httpx):
        answer = client.post(f"{service.http}/predictions/{model}", files=files, timeout=TIMEOUT)
        assert answer.status_code == 200, answer.text
        assert [each["label"] for each in answer.json()] == labels(expected)


def test_a_file_in_curls_form(service, model, expected):
    command = ["curl", "--silent", "--fail", "--noproxy", "*", f"{service.http}/predictions/{model}"]
    content = subprocess.run([*command, "--form", f"image=@{EXAMPLE}"], capture_output=True, check=True).stdout
    assert json.loads(content)["class"] == expected[0].argmax()


def test_inference_as_json(post, service, model, expected):
    body = {
        "id": "7",
        "inputs": [{"name": "image", "shape": [5, 28, 28], "datatype": "UINT8", "data": PIXELS.tolist()}],
    }
    for path in (f"/v2/models/{model}/infer", f"/v2/models/{model}/versions/{VERSION}/infer"):
        status, answer_type, content = post(service.http + path, json.dumps(body).encode(), "application/json")
        assert (status, answer_type.partition(";")[0]) == (200, "application/json"), content
        answer = json.loads(content)
        assert answer["id"] == "7"
        assert_same(answer["outputs"][0]["data"], expected)


ERRORS = {
    "not JSON": ("/v2/models/{}/infer", b"{", "application/json", 400),
    "no inputs": ("/v2/models/{}/infer", b"{}", "application/json", 422),
    "half an image": ("/predictions/{}", EXAMPLE.read_bytes()[:100], "image/png", 400),
    "unknown format": ("/predictions/{}", b"hello", "audio/ogg", 415),
    "wrong shape": ("/predictions/{}", b"[1, 2, 3]", "application/json", 422),
    "unknown model": ("/predictions/no{}", b"[1, 2, 3]", "application/json", 404),
    "unknown version": ("/v2/models/{}/versions/9.9/infer", b"{}", "application/json", 404),
    "unknown path": ("/nosuch/{}", b"", "application/json", 404),
}


@pytest.mark.parametrize(("path", "body", "content_type", "status"), ERRORS.values(), ids=ERRORS)
def test_errors_are_problem_documents(post, service, model, path, body, content_type, status):
    answer_status, answer_type, content = post(service.http + path.format(model), body, content_type)
    assert (answer_status, answer_type.partition(";")[0]) == (status, "application/problem+json"), content
    problem = json.loads(content)
    assert problem.keys() >= PROBLEM
    assert problem["status"] == status
    # Clients of the Open Inference Protocol read this field.
    assert problem["error"] == problem["detail"]


def test_top_k(service, model, expected):
    answer = requests.post(
        f"{service.http}/predictions/{model}?top_k=3",
        data=EXAMPLE.read_bytes(),
        headers={"Content-Type": "image/png"},
        timeout=TIMEOUT,
    )
    assert list(answer.json()["probabilities"]) == [
        labels(np.eye(10)[[index]])[0] for index in np.argsort(-expected[0], kind="stable")[:3]
    ]
