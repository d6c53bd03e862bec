"""Every trained model returns over HTTP what its network computes in this process, with the accuracy of its metrics."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests
import torch

from models import artifacts
from models.building import load_network
from models.catalog import CATALOG, DEFAULT_VERSION
from models.datasets import DATASETS
from models.training import forward, prepare, probabilities
from tests.support import image_files

COMPARED_EXAMPLES = 200
TOLERANCE = 1e-5
IMAGE_MODELS = [name for name, entry in CATALOG.items() if entry.input.kind == "image"]


def expected(name: str, count: int | None = None) -> np.ndarray:
    """The network's probabilities of the first ``count`` test examples, float32 [count, labels]."""
    entry = CATALOG[name]
    inputs = prepare(DATASETS[entry.dataset]().test_inputs[:count], entry.input)
    temperature = artifacts.signature(name, DEFAULT_VERSION).output.temperature
    return probabilities(forward(load_network(entry, DEFAULT_VERSION), inputs), entry.activation, temperature).numpy()


def rows(answers: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([list(answer["probabilities"].values()) for answer in answers], dtype=np.float32)


def post(service, name: str, body: bytes, content_type: str, **headers: str) -> requests.Response:
    return requests.post(
        f"{service.inference}/predictions/{name}",
        data=body,
        headers={"Content-Type": content_type, **headers},
        timeout=60,
    )


def predict(service, name: str, body: bytes, content_type: str) -> Any:
    response = post(service, name, body, content_type)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("name", IMAGE_MODELS)
@pytest.mark.parametrize("form", ["one PNG each", "one raw image each", "all raw at once", "all as JSON at once"])
def test_image_models_answer_as_the_network(service, name, form):
    images = DATASETS["fashion_mnist"]().test_inputs[:COMPARED_EXAMPLES].numpy()
    if form == "all raw at once":
        answers = predict(service, name, images.tobytes(), "application/octet-stream")
    elif form == "all as JSON at once":
        answers = requests.post(f"{service.inference}/predictions/{name}", json=images.tolist(), timeout=60).json()
    else:
        content_type = "image/png" if form == "one PNG each" else "application/octet-stream"
        bodies = [image_files.save(image) if form == "one PNG each" else image.tobytes() for image in images]
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda body: predict(service, name, body, content_type), bodies))
        answers = [answer[0] if isinstance(answer, list) else answer for answer in answers]
    served = rows(answers)
    computed = expected(name, COMPARED_EXAMPLES)
    assert served.shape == computed.shape
    assert np.abs(served - computed).max() < TOLERANCE
    assert [answer["class"] for answer in answers] == computed.argmax(1).tolist()
    labels = CATALOG[name].labels
    assert all(answer["label"] == labels[answer["class"]] for answer in answers)
    assert all(answer["probability"] == max(answer["probabilities"].values()) for answer in answers)


@pytest.mark.parametrize("name", [name for name, entry in CATALOG.items() if entry.input.kind == "vector"])
def test_vector_models_answer_as_the_network(service, name):
    inputs = DATASETS[CATALOG[name].dataset]().test_inputs[:COMPARED_EXAMPLES]
    response = requests.post(f"{service.inference}/predictions/{name}", json=inputs.tolist(), timeout=60)
    assert response.status_code == 200, response.text
    assert np.abs(rows(response.json()) - expected(name, COMPARED_EXAMPLES)).max() < TOLERANCE


@pytest.mark.parametrize("name", CATALOG)
def test_accuracy_over_http_is_that_of_the_metrics(service, name):
    entry = CATALOG[name]
    data = DATASETS[entry.dataset]()
    metrics = artifacts.metrics(name, DEFAULT_VERSION)
    chunks = []
    for chunk in torch.split(data.test_inputs, 1000):
        response = post(service, name, chunk.numpy().tobytes(), "application/octet-stream", Accept="application/x-npy")
        assert response.status_code == 200, response.text
        chunks.append(np.load(io.BytesIO(response.content)))
    answers = np.concatenate(chunks)
    assert answers.shape == (len(data.test_inputs), len(entry.labels))
    targets = data.test_targets.numpy()
    correct = (answers >= 0.5) == (targets >= 0.5) if entry.activation == "sigmoid" else answers.argmax(1) == targets
    assert correct.mean() == pytest.approx(metrics["test_accuracy"], abs=1e-9)


@pytest.mark.parametrize(("name", "accuracy"), [("fashion_mlp", 0.900), ("fashion_convnet", 0.920)])
def test_the_default_versions_are_accurate_and_calibrated(name, accuracy):
    metrics = artifacts.metrics(name, DEFAULT_VERSION)
    assert metrics["test_accuracy"] >= accuracy
    assert metrics["expected_calibration_error"] <= 0.015


BAD = {
    "empty": (b"", "application/octet-stream", 400),
    "half an image": (bytes(100), "application/octet-stream", 422),
    "not a PNG": (b"\x89PNG\r\n\x1a\nnonsense", "image/png", 400),
    "cut JSON": (b"[[1, 2", "application/json", 400),
    "wrong shape": (b"[[1, 2], [3, 4]]", "application/json", 422),
    "out of range": (b"[" + b",".join([b"300"] * 784) + b"]", "application/json", 422),
    "NaN": (b"[" + b",".join([b"NaN"] * 784) + b"]", "application/json", 422),
    "unknown format": (b"%PDF-1.7 nothing", "application/pdf", 415),
}


def assert_problem(response: requests.Response, status: int) -> None:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]


@pytest.mark.parametrize("name", IMAGE_MODELS)
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_answered_with_a_problem(service, name, case):
    body, content_type, status = BAD[case]
    assert_problem(post(service, name, body, content_type), status)


def test_each_request_of_a_mixed_batch_gets_its_own_answer(service):
    images = DATASETS["fashion_mnist"]().test_inputs[:COMPARED_EXAMPLES].numpy()
    computed = expected("fashion_mlp", COMPARED_EXAMPLES)
    cases = list(BAD.values())

    def send(index: int) -> None:
        if index % 4 == 3:
            body, content_type, status = cases[index // 4 % len(cases)]
            assert_problem(post(service, "fashion_mlp", body, content_type), status)
        else:
            answer = predict(service, "fashion_mlp", image_files.save(images[index]), "image/png")
            assert np.abs(rows([answer])[0] - computed[index]).max() < TOLERANCE

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(send, range(COMPARED_EXAMPLES)))


def test_one_multipart_request_may_hold_several_files(service):
    images = DATASETS["fashion_mnist"]().test_inputs[:3].numpy()
    files = {
        f"file{index}": (f"{index}.png", image_files.save(image), "image/png") for index, image in enumerate(images)
    }
    response = requests.post(f"{service.inference}/predictions/fashion_convnet", files=files, timeout=60)
    assert response.status_code == 200, response.text
    assert np.abs(rows(response.json()) - expected("fashion_convnet", 3)).max() < TOLERANCE
