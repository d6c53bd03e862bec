"""Every trained model answers over HTTP what its network answers in this process, and scores what its metrics say."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from models import artifacts
from models.building import load_network
from models.catalog import CATALOG, DEFAULT_VERSION
from models.datasets import DATASETS
from models.training import forward, prepare, probabilities

COMPARED = 200
TOLERANCE = 1e-5
IMAGE_MODELS = [name for name, entry in CATALOG.items() if entry.input.kind == "image"]


def expected(name: str, count: int | None = None) -> np.ndarray:
    """Probabilities of the first ``count`` test examples by the network in this process, float32 [count, labels]."""
    entry = CATALOG[name]
    inputs = prepare(DATASETS[entry.dataset]().test_inputs[:count], entry.input)
    temperature = artifacts.signature(name, DEFAULT_VERSION).output.temperature
    return probabilities(forward(load_network(entry, DEFAULT_VERSION), inputs), entry.activation, temperature).numpy()


def rows(answers: list[dict]) -> np.ndarray:
    return np.array([list(answer["probabilities"].values()) for answer in answers], dtype=np.float32)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def post(service, name: str, body: bytes, content_type: str, **headers: str) -> requests.Response:
    return requests.post(
        f"{service.inference}/predictions/{name}",
        data=body,
        headers={"Content-Type": content_type, **headers},
        timeout=60,
    )


def answer(service, name: str, body: bytes, content_type: str) -> dict | list:
    answered = post(service, name, body, content_type)
    assert answered.status_code == 200, answered.text
    return answered.json()


@pytest.mark.parametrize("name", IMAGE_MODELS)
@pytest.mark.parametrize("way", ["one PNG each", "one raw image each", "all raw at once", "all as JSON at once"])
def test_image_models_answer_as_the_network(service, name, way):
    images = DATASETS["fashion_mnist"]().test_inputs[:COMPARED].numpy()
    if way == "all raw at once":
        answers = answer(service, name, images.tobytes(), "application/octet-stream")
    elif way == "all as JSON at once":
        answers = requests.post(f"{service.inference}/predictions/{name}", json=images.tolist(), timeout=60).json()
    else:
        content_type = "image/png" if way == "one PNG each" else "application/octet-stream"
        bodies = [png(image) if way == "one PNG each" else image.tobytes() for image in images]
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda body: answer(service, name, body, content_type), bodies))
        answers = [one[0] if isinstance(one, list) else one for one in answers]
    found = rows(answers)
    wanted = expected(name, COMPARED)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < TOLERANCE
    assert [one["class"] for one in answers] == wanted.argmax(1).tolist()
    labels = CATALOG[name].labels
    assert all(one["label"] == labels[one["class"]] for one in answers)
    assert all(one["probability"] == max(one["probabilities"].values()) for one in answers)


@pytest.mark.parametrize("name", [name for name, entry in CATALOG.items() if entry.input.kind == "vector"])
def test_vector_models_answer_as_the_network(service, name):
    inputs = DATASETS[CATALOG[name].dataset]().test_inputs[:COMPARED]
    answered = requests.post(f"{service.inference}/predictions/{name}", json=inputs.tolist(), timeout=60)
    assert answered.status_code == 200, answered.text
    assert np.abs(rows(answered.json()) - expected(name, COMPARED)).max() < TOLERANCE


@pytest.mark.parametrize("name", CATALOG)
def test_accuracy_over_http_is_that_of_the_metrics(service, name):
    entry = CATALOG[name]
    data = DATASETS[entry.dataset]()
    metrics = artifacts.metrics(name, DEFAULT_VERSION)
    found = []
    for chunk in torch.split(data.test_inputs, 1000):
        answered = post(service, name, chunk.numpy().tobytes(), "application/octet-stream", Accept="application/x-npy")
        assert answered.status_code == 200, answered.text
        found.append(np.load(io.BytesIO(answered.content)))
    answers = np.concatenate(found)
    assert answers.shape == (len(data.test_inputs), len(entry.labels))
    truth = data.test_targets.numpy()
    right = (answers >= 0.5) == (truth >= 0.5) if entry.activation == "sigmoid" else answers.argmax(1) == truth
    assert right.mean() == pytest.approx(metrics["test_accuracy"], abs=1e-9)


@pytest.mark.parametrize(("name", "accuracy"), [("fashion_mlp", 0.900), ("fashion_convnet", 0.920)])
def test_the_committed_defaults_reach_their_quality(name, accuracy):
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


def assert_problem(answered: requests.Response, status: int) -> None:
    assert answered.status_code == status, answered.text
    assert answered.headers["Content-Type"] == "application/problem+json"
    problem = answered.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]


@pytest.mark.parametrize("name", IMAGE_MODELS)
@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_its_problem(service, name, case):
    body, content_type, status = BAD[case]
    assert_problem(post(service, name, body, content_type), status)


def test_a_mixed_batch_answers_each_request_rightly(service):
    images = DATASETS["fashion_mnist"]().test_inputs[:COMPARED].numpy()
    wanted = expected("fashion_mlp", COMPARED)
    cases = list(BAD.values())

    def one(place: int) -> None:
        if place % 4 == 3:
            body, content_type, status = cases[place // 4 % len(cases)]
            assert_problem(post(service, "fashion_mlp", body, content_type), status)
        else:
            answered = answer(service, "fashion_mlp", png(images[place]), "image/png")
            assert np.abs(rows([answered])[0] - wanted[place]).max() < TOLERANCE

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(COMPARED)))


def test_one_multipart_request_with_several_files(service):
    images = DATASETS["fashion_mnist"]().test_inputs[:3].numpy()
    files = {f"file{index}": (f"{index}.png", png(image), "image/png") for index, image in enumerate(images)}
    answered = requests.post(f"{service.inference}/predictions/fashion_convnet", files=files, timeout=60)
    assert answered.status_code == 200, answered.text
    assert np.abs(rows(answered.json()) - expected("fashion_convnet", 3)).max() < TOLERANCE
