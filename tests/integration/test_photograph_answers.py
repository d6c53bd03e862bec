"""Photographs and strange images through the whole service: their own weights, the score, the protocol, metrics."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import requests
import torch

from handlers.inputs import images
from handlers.outputs import ood
from models import artifacts
from models.catalog import CATALOG, DEFAULT_VERSION
from models.datasets import fashion_mnist
from models.training import forward, prepare, probabilities
from serving.polling import wait_until
from tests.support import image_files, metrics_page
from tests.support.photographs import photograph

MODELS = [name for name, entry in CATALOG.items() if entry.photographs]
TIMEOUT_S = 30


@pytest.fixture(scope="module")
def file() -> bytes:
    return image_files.save(photograph(), "JPEG", quality=90)


def ask(service, path: str, body: bytes, content_type: str, **headers: str) -> dict[str, Any]:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"{service.inference}{path}"
    answer = requests.post(url, body, headers={"Content-Type": content_type, **headers}, timeout=TIMEOUT_S)
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = answer.json()
    return parsed


@pytest.mark.parametrize("name", MODELS)
def test_a_photograph_is_answered_by_the_weights_for_photographs(service, name, file):
    entry, output = CATALOG[name], artifacts.signature(name, DEFAULT_VERSION).output
    network = torch.jit.load(str(artifacts.folder(name, DEFAULT_VERSION) / artifacts.PHOTOGRAPHS))
    pixels = np.stack([images.decode(file, (28, 28))])
    scores = forward(network, prepare(torch.from_numpy(pixels), entry.input))
    right = probabilities(scores, "softmax", output.photograph_temperature or 0)[0].numpy()
    answer = ask(service, f"/predictions/{name}", file, "image/jpeg")
    np.testing.assert_allclose(list(answer["probabilities"].values()), right, atol=1e-5)
    # Its explanation is that of the same weights.
    explained = ask(service, f"/explanations/{name}", file, "image/jpeg")
    assert explained["label"] == answer["label"]
    assert explained["probability"] == answer["probability"]


@pytest.mark.parametrize("name", MODELS)
def test_strange_images_are_above_the_threshold_and_test_images_below(service, name):
    signature = artifacts.signature(name, DEFAULT_VERSION)
    detector = ood.read(artifacts.folder(name, DEFAULT_VERSION))
    noise = np.random.default_rng(0).integers(0, 256, (1, 28, 28), np.uint8)
    known = fashion_mnist().test_inputs[:20].numpy()
    several = np.concatenate([noise, known])
    tensor = {"name": "image", "shape": [21, 28, 28], "datatype": "UINT8", "data": several.ravel().tolist()}
    body = json.dumps({"inputs": [tensor], "outputs": [{"name": "ood"}]}).encode()
    (found,) = ask(service, f"/v2/models/{name}/infer", body, "application/json")["outputs"]
    np.testing.assert_allclose(found["data"], detector.scores(several), atol=1e-5)
    assert found["data"][0] > signature.ood_threshold
    assert np.mean(np.array(found["data"][1:]) < signature.ood_threshold) > 0.8
    raw = ask(service, f"/predictions/{name}", noise.tobytes(), "application/octet-stream", X_Query="ood=true")
    assert raw["ood"] == pytest.approx(found["data"][0], abs=1e-5)
    assert raw["ood_threshold"] == pytest.approx(signature.ood_threshold)


def test_scores_are_counted(service, file):
    def counts() -> tuple[float, float]:
        page = metrics_page.samples(requests.get(f"{service.settings.frontdoor.url}/metrics", timeout=TIMEOUT_S).text)
        names = ("fashion_ood_count", "fashion_ood_above_total")
        return page[(names[0], "fashion_mlp", "1.0")], page[(names[1], "fashion_mlp", "1.0")]

    # The counters are written four times a second.
    before = counts()
    for body, kind in ((bytes(784), "application/octet-stream"), (file, "image/jpeg")):
        ask(service, "/predictions/fashion_mlp", body, kind, X_Query="ood=true")
    assert wait_until(lambda: counts()[0] - before[0] >= 2, TIMEOUT_S)
    assert counts()[1] - before[1] >= 1
